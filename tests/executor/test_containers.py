"""The executor with the container driver: a run whose tasks pass files and caches on, and a restart in mid-step."""

import pytest


@pytest.fixture
def start(installation, agola_container_engine):
    options = agola_container_engine.options
    arguments = ["--driver", "container", "--socket", options.socket, "--pull", options.pull]
    if options.network:
        arguments += ["--network", options.network]
    for name, value in options.ulimits.items():
        arguments += ["--ulimit", f"{name}={value}"]
    installation.start_service()
    return lambda *more, fault="": installation.start_executor(*arguments, *more, fault=fault)


def runtime(image, **fields):
    return {"type": "pod", "containers": [{"image": image, **fields}]}


def test_workspaces_and_caches_pass_between_containers(installation, agola_container_engine, start, make_task):
    start("--stop-tasks")
    here = runtime(agola_container_engine.image, environment={"FROM": "container"})
    save = {"type": "save_to_workspace", "contents": [{"source_dir": "out", "dest_dir": "d", "paths": ["**"]}]}
    cache = {"type": "save_cache", "key": 'k-{{ md5sum "lock" }}', "contents": [{"source_dir": "/tmp/cached"}]}
    build = "mkdir -p out /tmp/cached; echo $FROM >out/f; chmod 700 out/f; echo 1 >lock; echo kept >/tmp/cached/g; pwd"
    restore = {"type": "restore_workspace", "dest_dir": "."}
    cached = {"type": "restore_cache", "keys": ["k-"], "dest_dir": "/tmp/cached"}
    run_id = installation.create(
        make_task("a", build, save, cache, runtime=here),
        make_task("b", restore, cached, "cat d/f /tmp/cached/g; stat -c %a d/f", runtime=here, depends=["a"]),
    )
    run = installation.finished(run_id, 120)
    assert run["result"] == "success", run
    assert installation.log(run_id, "a") == "/root/project\n"
    assert installation.log(run_id, "b", 2) == "container\nkept\n700\n"


def test_a_step_goes_on_without_its_executor(installation, agola_container_engine, start, make_task):
    start()
    here = runtime(agola_container_engine.image)
    command = "echo begun; while [ ! -e /tmp/gate ]; do sleep 0.1; done; echo ended; exit 3"
    run_id = installation.create(make_task("a", command, runtime=here))
    params = {"runid": run_id, "taskid": "a", "step": "0", "follow": ""}
    with installation.client.stream("GET", "/api/v1alpha/logs", params=params, timeout=120) as stream:
        assert next(stream.iter_bytes()) == b"begun\n"
        installation.executor.kill()
    start("--stop-tasks")
    installation.client.put(f"/api/v1alpha/runs/{run_id}/actions", json={"action_type": "stop"})
    run = installation.finished(run_id, 120)
    assert run["result"] == "stopped"
    assert installation.log(run_id, "a").startswith("begun\n")


@pytest.mark.parametrize("point", ["executor.before-begin", "executor.after-begin"])
def test_a_step_is_found_wherever_its_executor_died_at_its_start(
    installation, agola_container_engine, start, make_task, point
):
    start(fault=f"{point}:1")
    run_id = installation.create(make_task("a", "echo x; exit 4", runtime=runtime(agola_container_engine.image)))
    installation.executor.popen.wait(60)
    start("--stop-tasks")
    run = installation.finished(run_id, 120)
    assert run["tasks"]["a"]["steps"][0]["exit_code"] == 4
    assert installation.log(run_id, "a") == "x\n"


def test_a_task_whose_executor_died_while_it_ended_keeps_its_result(
    installation, agola_container_engine, start, make_task
):
    """Its containers are gone by then, and what it saved from them cannot be saved again."""
    start(fault="executor.before-end")
    save = {"type": "save_to_workspace", "contents": [{"source_dir": ".", "paths": ["f"]}]}
    run_id = installation.create(make_task("a", "echo x >f", save, runtime=runtime(agola_container_engine.image)))
    installation.executor.popen.wait(60)
    start("--stop-tasks")
    assert installation.finished(run_id, 120)["result"] == "success"


def test_a_privileged_task_is_not_given_to_an_executor_that_does_not_allow_it(
    installation, agola_container_engine, start, make_task
):
    start("--stop-tasks")
    here = runtime(agola_container_engine.image, privileged=True)
    run_id = installation.create(make_task("a", "true", runtime=here))
    other = installation.create(
        make_task("b", "true", runtime=runtime(agola_container_engine.image)), group="/project/q"
    )
    assert installation.finished(other, 120)["result"] == "success"
    assert installation.run(run_id)["tasks"]["a"]["status"] == "notstarted"
