"""What containers alone do: several of them, logins, privileges, labels, orphans."""

import contextlib
import uuid

import pytest

from agola_core.errors import ConfigError, ForbiddenError, UnavailableError
from agola_core.executor.drivers.container.driver import LABEL_EXECUTOR, LABEL_TASK, ContainerDriver
from agola_core.executor.drivers.container.engine import Engine, EngineOptions
from agola_core.executor.drivers.container.images import registry_login, split_image
from agola_core.executor.drivers.factory import make_driver
from agola_core.executor.drivers.host import Isolation
from agola_core.executor.drivers.port import Command
from agola_core.executor.tasks.directory import TaskDirectory
from agola_core.runservice.model.types import (
    Container,
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStatus,
    ExecutorTaskStepStatus,
    RegistryAuth,
    RunStep,
    TemporaryFileSystem,
    Volume,
)


@pytest.fixture
def executor_id():
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def engine(agola_container_engine, executor_id):
    with contextlib.closing(Engine(agola_container_engine.options)) as connection:
        yield connection
        for found in connection.containers([f"{LABEL_EXECUTOR}={executor_id}"]):
            connection.remove(found.id)


def opened(driver, root, executor_id, *containers, phase=ExecutorPhase.NOT_STARTED):
    task = ExecutorTask(
        id="task",
        attempt=1,
        containers=list(containers),
        steps=[RunStep(command="true")],
        status=ExecutorTaskStatus(executor_id=executor_id, steps=[ExecutorTaskStepStatus(phase=phase)]),
    )
    directory = TaskDirectory(root / "task")
    directory.create()
    lines = []
    return driver.open_pod(task, directory.path, lines.append), directory, lines


def run(pod, directory, script, user=""):
    command = Command(
        argv=["/bin/sh", "-e"],
        script=script,
        environment={},
        working_dir="/tmp/work",
        user=user,
        output=directory.log(0),
        exit_file=directory.exit_file(0),
    )
    process = pod.start(command)
    return process.wait(), directory.log(0).read_text()


def test_services_share_the_network_of_the_first_container(agola_container_engine, engine, executor_id, tmp_path):
    driver, image = ContainerDriver(agola_container_engine.options), agola_container_engine.image
    pod, directory, lines = opened(
        driver,
        tmp_path,
        executor_id,
        Container(image=image, environment={"MINE": "x y"}, user="nobody"),
        Container(image=image, entrypoint="sleep 1000", environment={"ROLE": "service"}),
    )
    assert len(engine.containers([f"{LABEL_EXECUTOR}={executor_id}", f"{LABEL_TASK}=task"])) == 2
    assert len(lines) == 2
    assert run(pod, directory, "id -un; echo $MINE; ls /proc/self/ns/net >/dev/null") == (0, "nobody\nx y\n")
    main, service = (engine._api.inspect_container(item) for item in pod._containers)
    assert service["HostConfig"]["NetworkMode"] == f"container:{main['Id']}"
    assert main["HostConfig"]["SecurityOpt"]
    pod.close()
    assert engine.containers([f"{LABEL_EXECUTOR}={executor_id}"]) == []


def test_volumes_in_memory_have_their_size(agola_container_engine, engine, executor_id, tmp_path):
    volumes = [
        Volume(path="/small", tmpfs=TemporaryFileSystem(size=65536)),
        Volume(path="/large", tmpfs=TemporaryFileSystem()),
        Volume(path="/none"),
    ]
    driver = ContainerDriver(agola_container_engine.options)
    container = Container(image=agola_container_engine.image, volumes=volumes)
    pod, directory, _ = opened(driver, tmp_path, executor_id, container)
    script = "grep -E ' /(small|large|none) ' /proc/mounts; head -c 70000 /dev/zero >/small/file || echo full"
    code, log = run(pod, directory, script)
    pod.close()
    assert code == 0
    mounts = {line.split()[1]: line for line in log.splitlines() if line.startswith("tmpfs ")}
    assert set(mounts) == {"/small", "/large"}
    assert "size=64k" in mounts["/small"]
    assert "size=" not in mounts["/large"]
    assert log.endswith("full\n")


def test_a_privileged_container_is_refused_unless_it_is_allowed(agola_container_engine, engine, executor_id, tmp_path):
    driver = ContainerDriver(agola_container_engine.options)
    assert not driver.allow_privileged
    plain = Container(image=agola_container_engine.image)
    privileged = Container(image=agola_container_engine.image, privileged=True)
    with pytest.raises(ForbiddenError, match="privileged containers are not allowed"):
        opened(driver, tmp_path, executor_id, plain, privileged)
    assert engine.containers([f"{LABEL_EXECUTOR}={executor_id}"]) == []  # the first one is gone, too


def test_orphans_are_removed_and_what_is_known_stays(agola_container_engine, engine, executor_id, tmp_path):
    driver = ContainerDriver(agola_container_engine.options)
    pod, _, _ = opened(driver, tmp_path, executor_id, Container(image=agola_container_engine.image))
    driver.clean("another", lambda _: False)
    driver.clean(executor_id, lambda task_id: task_id == "task")
    assert len(engine.containers([f"{LABEL_EXECUTOR}={executor_id}"])) == 1
    driver.clean(executor_id, lambda _: False)
    assert engine.containers([f"{LABEL_EXECUTOR}={executor_id}"]) == []
    pod.close()  # harmless


def test_containers_that_are_gone_fail_a_task_that_has_begun(agola_container_engine, executor_id, tmp_path):
    driver = ContainerDriver(agola_container_engine.options)
    container = Container(image=agola_container_engine.image)
    with pytest.raises(UnavailableError, match="the task's containers are gone"):
        opened(driver, tmp_path, executor_id, container, phase=ExecutorPhase.RUNNING)


def test_an_image_that_is_not_there(agola_container_engine, executor_id, tmp_path):
    driver = ContainerDriver(agola_container_engine.options)
    with pytest.raises(UnavailableError, match="no-such-image"):
        opened(driver, tmp_path, executor_id, Container(image="localhost/no-such-image:1"))
    with pytest.raises(ConfigError, match="container 0 has no image"):
        opened(driver, tmp_path, executor_id, Container())


def test_no_engine_is_said(tmp_path):
    with pytest.raises(UnavailableError, match="cannot be reached"):
        make_driver("container", engine=EngineOptions(socket=f"unix://{tmp_path}/none"))
    with pytest.raises(ConfigError, match="known are host, container"):
        make_driver("nothing")
    for network, isolation in (("bridge", Isolation.NONE), ("none", Isolation.NONE)):
        with pytest.raises(ConfigError, match="isolated steps"):
            make_driver("host", isolation=isolation, engine=EngineOptions(network=network))


BASIC = RegistryAuth(type="basic", username="u", password="p")


@pytest.mark.parametrize(
    ("image", "registry", "found"),
    [
        ("busybox", "index.docker.io", True),
        ("busybox", "docker.io", True),
        ("group/name:1", "https://index.docker.io/v1/", True),
        ("registry.example.org/name", "registry.example.org", True),
        ("registry.example.org:5000/group/name:1", "registry.example.org:5000", True),
        ("localhost/name", "localhost", True),
        ("registry.example.org/name", "index.docker.io", False),
        ("group/name", "group", False),
        ("registry.example.org.evil.example/name", "registry.example.org", False),
    ],
)
def test_a_login_goes_to_its_own_registry_alone(image, registry, found):
    assert registry_login(image, {registry: BASIC}) == ({"username": "u", "password": "p"} if found else {})


def test_an_encoded_login():
    auth = RegistryAuth(type="encodedauth", auth="dTpwOjE=")
    assert registry_login("busybox", {"docker.io": auth}) == {"auth": "dTpwOjE=", "username": "u", "password": "p:1"}
    for wrong in ("", "???", "dQ=="):
        with pytest.raises(ConfigError, match="base64"):
            registry_login("busybox", {"docker.io": RegistryAuth(type="encodedauth", auth=wrong)})


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("a", "a", "latest"),
        ("a:1", "a", "1"),
        ("host:5000/a", "host:5000/a", "latest"),
        ("host:5000/a/b:1", "host:5000/a/b", "1"),
        ("a@sha256:00", "a", "sha256:00"),
    ],
)
def test_images_are_taken_apart(image, repository, tag):
    assert split_image(image) == (repository, tag)
