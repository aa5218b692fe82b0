"""The contract of every driver: pods, commands, their ends, and files in and out."""

import errno
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from agola_core.errors import AgolaError, BadRequestError, ConfigError, NotFoundError, UnavailableError
from agola_core.executor.archives.pack import Packed
from agola_core.executor.drivers.container import ContainerDriver
from agola_core.executor.drivers.exitfile import read_exit_code
from agola_core.executor.drivers.host import HostDriver, cgroup, pod
from agola_core.executor.drivers.host.bubblewrap import Isolation, check_bubblewrap
from agola_core.executor.drivers.port import Command
from agola_core.executor.tasks.directory import TaskDirectory
from agola_core.runservice.model.types import ArchiveContents, Container, ExecutorTask, ExecutorTaskStatus

SHELL = ["/bin/sh", "-e"]


class Bench:
    """A task on a driver, as the executor has it."""

    def __init__(self, driver, root, task_id="task-1"):
        self.driver = driver
        self.task = ExecutorTask(
            id=task_id,
            attempt=1,
            containers=[Container(image=getattr(driver, "image", ""))],
            status=ExecutorTaskStatus(executor_id=str(root)),
        )
        self.directory = TaskDirectory(root / "tasks" / task_id)
        root.joinpath("tasks").mkdir(mode=0o711, exist_ok=True)
        self.directory.create()
        self.pod = driver.open_pod(self.task, self.directory.path, lambda _: None)
        self.count = 0

    def start(self, script, *, argv=SHELL, user="", environment=None, working_dir=None):
        step, self.count = self.count, self.count + 1
        self.noted = None
        command = Command(
            argv=argv,
            script=script,
            environment=environment or {},
            working_dir=working_dir or self.path("project"),
            user=user,
            output=self.directory.log(step),
            exit_file=self.directory.exit_file(step),
        )
        process = self.pod.start(command, self.note)
        return process, self.directory.log(step)

    def note(self, description):
        self.noted = description

    def find(self):
        """Return the command that was noted last, as a later executor finds it."""
        return self.driver.find_process(self.noted, self.directory.exit_file(self.count - 1))

    def run(self, script, **options):
        process, log = self.start(script, **options)
        code = process.wait()
        return code, log.read_text()

    def path(self, name, user=""):
        return f"{self.pod.variables(user)['HOME']}/{name}"

    def started(self, script, **options):
        """Start a command and wait until it has said its first line."""
        process, log = self.start(script, **options)
        while b"\n" not in log.read_bytes():
            time.sleep(0.005)
        return process, log


@pytest.fixture(params=["host", "host-isolated", "container"])
def driver(request):
    if request.param == "host":
        return HostDriver()
    if request.param == "container":
        engine = request.getfixturevalue("agola_container_engine")
        driver = ContainerDriver(engine.options)
        driver.image = engine.image
        return driver
    try:
        check_bubblewrap()
    except ConfigError as error:
        pytest.skip(str(error))
    return HostDriver(isolation=Isolation.BUBBLEWRAP)


@pytest.fixture
def bench(driver, tmp_path):
    tmp_path.chmod(0o755)
    bench = Bench(driver, tmp_path)
    yield bench
    bench.pod.close()


def test_a_command_runs_and_its_output_and_code_are_kept(bench):
    code, log = bench.run("echo out; echo err >&2; echo out2; exit 7")
    assert (code, log) == (7, "out\nerr\nout2\n")
    assert read_exit_code(bench.directory.exit_file(0)) == 7
    assert bench.run("true")[0] == 0


def test_the_first_command_that_fails_ends_a_script(bench):
    code, log = bench.run("echo one\nfalse\necho two")
    assert (code, log) == (1, "one\n")


def test_without_a_script_the_shell_itself_runs(bench):
    code, log = bench.run("", argv=["/bin/sh", "-c", "echo given"])
    assert (code, log) == (0, "given\n")


def test_standard_input_is_empty(bench):
    assert bench.run("cat; echo end") == (0, "end\n")


def test_the_environment_is_clean(bench, monkeypatch):
    monkeypatch.setenv("AGOLA_SECRET_OF_THE_EXECUTOR", "x")
    code, log = bench.run("env", environment={"MINE": "a b\nc", "CI": "over"})
    assert code == 0
    found = log.splitlines()
    assert "MINE=a b" in found
    assert "CI=over" in found
    assert not any("SECRET" in line for line in found)
    variables = bench.pod.variables("")
    assert f"HOME={variables['HOME']}" in found


def test_the_working_directory_is_made(bench):
    wanted = bench.path("a/b c")
    assert bench.run("pwd; echo x >file", working_dir=wanted) == (0, f"{wanted}\n")
    assert b"".join(bench.pod.read(f"{wanted}/file", "")) == b"x\n"


def test_files_stay_from_step_to_step(bench):
    bench.run("echo kept >file")
    assert bench.run("cat file") == (0, "kept\n")


def test_a_command_that_does_not_exist(bench):
    code, log = bench.run("", argv=["/no/such/shell"])
    assert code != 0
    assert "/no/such/shell" in log


def test_a_signal_is_128_and_its_number(bench):
    assert bench.run("kill -9 $$")[0] == 128 + signal.SIGKILL


def test_output_that_is_no_text(bench):
    process, log = bench.start("printf '\\377\\000\\001'")
    process.wait()
    assert log.read_bytes() == b"\xff\x00\x01"


def test_killing_ends_a_command_that_will_not_end(bench):
    process, _ = bench.started("trap '' TERM; echo begun; while :; do sleep 0.1; done")
    process.kill()
    assert process.wait() is None, "it has no exit code"
    process.kill()  # harmless


def test_a_killed_command_has_time_to_clean_up(bench):
    script = "trap 'sleep 0.3; echo cleaned; exit 3' TERM; echo begun; while :; do sleep 0.05 || :; done"
    process, log = bench.started(script)
    killer = threading.Thread(target=process.kill)
    killer.start()
    assert process.wait() == 3
    killer.join()
    bench.pod.close()
    assert log.read_text().startswith("begun\n")
    assert log.read_text().endswith("cleaned\n")


BACKGROUND = {
    "child": "sleep 4321 &",
    "session": "setsid sleep 4321 &",
    "twice": "(setsid sh -c 'setsid sleep 4321 & sleep 4321' &);",
    "unmarked": "env -i setsid sleep 4321 &",
    "orphan": "(env -i setsid sh -c 'env -i setsid sleep 4321 &' &);",
}


def sleepers(bench):
    """Return the processes of a task's sleeps: those that stand where its working directory is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            asleep = b"4321" in (process / "cmdline").read_bytes().split(b"\0")
            if asleep and str(bench.directory.path) in str((process / "cwd").readlink()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("kind", BACKGROUND)
@pytest.mark.parametrize("end", ["kill", "close"])
def test_nothing_that_a_task_has_started_survives_it(bench, kind, end):
    if not isinstance(bench.driver, HostDriver):
        pytest.skip("a container ends whole")
    if kind in {"unmarked", "orphan"} and cgroup.make_cgroup("probe-of-the-test") is None:
        pytest.skip("this process may not make control groups here")
    process, _ = bench.started(f"{BACKGROUND[kind]} echo begun; " + ("sleep 4321" if end == "kill" else "true"))
    if end == "kill":
        while not sleepers(bench):
            time.sleep(0.005)
        process.kill()
        assert not sleepers(bench)
    process.wait()
    bench.pod.close()
    assert not sleepers(bench)


@pytest.mark.parametrize("kind", ["child", "session", "twice"])
def test_without_control_groups_what_a_task_leaves_is_found_by_its_mark(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(pod, "make_cgroup", lambda _: None)
    bench = Bench(HostDriver(), tmp_path)
    bench.run(BACKGROUND[kind])
    bench.pod.close()
    assert not sleepers(bench)


def test_what_has_left_its_control_group_is_ended_by_the_next_clean(tmp_path):
    group = cgroup.make_cgroup("where-the-test-leaves-to")
    if group is None:
        pytest.skip("this process may not make control groups here")
    bench = Bench(HostDriver(), tmp_path)
    other = Bench(bench.driver, tmp_path, "task-2")
    bench.run(f"setsid sh -c 'echo 0 >{group.path}/cgroup.procs; exec sleep 4321' &")
    other.run("sleep 4321 &")
    while not sleepers(bench):
        time.sleep(0.005)
    bench.pod.close()
    bench.driver.clean("executor", lambda _: False)
    assert not sleepers(bench)
    assert sleepers(other), "its pod is still open"
    other.pod.close()
    group.kill()
    group.remove()


def test_a_running_command_is_found_again(bench):
    process, log = bench.started("echo begun; while [ ! -e gate ]; do sleep 0.02; done; echo ended; exit 5")
    again = bench.find()
    codes = []
    waiter = threading.Thread(target=lambda: codes.append(again.wait()))
    waiter.start()
    assert not codes
    gate = Path(bench.path("project/gate"))
    if gate.parent.exists():
        gate.touch()
    else:
        bench.run("touch gate")
    waiter.join(20)
    assert codes == [5]
    assert log.read_text() == "begun\nended\n"
    process.wait()


def test_a_command_that_ended_is_found_with_its_code(bench):
    process, _ = bench.start("exit 5")
    process.wait()
    assert bench.find().wait() == 5


def test_a_command_whose_shell_was_killed_has_no_exit_code(bench):
    if isolated(bench):  # the shell is not seen from inside
        process, _ = bench.started("echo begun; while :; do sleep 0.05; done")
        os.kill(bench.noted["pid"], signal.SIGKILL)
    else:
        process, _ = bench.start("kill -9 $PPID")
    assert process.wait() is None
    assert bench.find().wait() is None


def isolated(bench):
    return getattr(bench.driver, "_isolation", Isolation.NONE) is not Isolation.NONE


def test_a_command_is_noted_before_it_begins(bench):
    """An executor that cannot write down where a command is found does not let it begin."""

    def refuse(description):
        bench.noted = description
        raise OSError(errno.ENOSPC, "no space")

    bench.run("true")
    bench.note = refuse
    with pytest.raises(UnavailableError, match="could not be started"):
        bench.start("echo never >never")
    del bench.note
    again = bench.find()
    if again is not None:  # an engine starts the same one then, and only then
        assert again.wait() == 0
        assert bench.find().wait() == 0
    else:
        assert bench.run("ls")[1] == ""


def test_the_place_is_found_again(bench):
    bench.run("echo kept >file")
    again = bench.driver.open_pod(bench.task, bench.directory.path, lambda _: None)
    assert b"".join(again.read(bench.path("project/file"), "")) == b"kept\n"


def test_two_tasks_share_nothing(bench, tmp_path):
    other = Bench(bench.driver, tmp_path, "task-2")
    bench.run("echo mine >file")
    assert other.run("ls -A")[1] == ""
    assert other.path("") != bench.path("") or not isinstance(bench.driver, HostDriver)
    other.pod.close()


def test_a_missing_file_is_said(bench):
    with pytest.raises(NotFoundError, match="none"):
        b"".join(bench.pod.read(bench.path("none"), ""))


def test_files_are_packed_and_unpacked_with_modes_and_times(bench, tmp_path):
    script = """
    mkdir -p src/deep src/empty
    printf a >src/a.o; printf b >"src/deep/b c.o"; printf t >src/deep/t.txt
    ln -s a.o src/link; chmod 750 src/a.o; touch -d '2001-02-03 04:05:06' src/a.o
    """
    code, log = bench.run(script)
    assert code == 0, log
    contents = [ArchiveContents(source_dir="src", dest_dir="out", paths=["**/*.o", "link", "empty"])]
    target = tmp_path / "x.tar"
    assert bench.pod.pack(target, contents, bench.path("project"), "") == Packed(4)
    with tarfile.open(target) as archive:
        assert sorted(archive.getnames()) == ["out/a.o", "out/deep/b c.o", "out/empty", "out/link"]
    count = bench.pod.unpack([target.read_bytes()], bench.path("project/back"), "", overwrite=False)
    assert count == 4
    code, log = bench.run("cd back/out; cat a.o 'deep/b c.o' link; ls -ld empty >/dev/null; stat -c '%a %Y' a.o")
    assert (code, log) == (0, "aba750 981173106\n")


def test_what_an_archive_cannot_keep_is_told(bench, tmp_path):
    script = r"""
    mkdir -p src/closed src/sticky; printf s >src/tool; chmod 6755 src/tool; chmod 1777 src/sticky
    i=0; while [ $i -lt 5 ]; do mkfifo "src/pipe$i"; i=$((i+1)); done; mkfifo "src/$(printf 'p\033[2J')"
    printf c >src/closed/c; chmod 555 src/closed
    """
    code, log = bench.run(script)
    assert code == 0, log
    target = tmp_path / "x.tar"
    packed = bench.pod.pack(target, [ArchiveContents(source_dir="src", paths=["**"])], bench.path("project"), "")
    assert packed.count == 4
    assert sorted(line.split(":")[0] for line in packed.left_out) == [
        "left out, neither file, directory nor link",
        "left out, set-user and set-group bits",
    ]
    assert any(line.endswith(" and 3 more") for line in packed.left_out)
    assert all(line.isprintable() for line in packed.left_out)
    for _ in range(2):  # again into what is read-only now
        bench.pod.unpack([target.read_bytes()], bench.path("project/back"), "", overwrite=True)
    code, log = bench.run("cd back; stat -c '%n %a' closed sticky tool; cat closed/c")
    assert (code, log) == (0, "closed 555\nsticky 1777\ntool 755\nc")


def test_some_of_the_names_of_a_file_come_back_as_one_file(bench, tmp_path):
    code, log = bench.run("mkdir src; echo x >src/a; ln src/a src/b; ln src/a src/c")
    assert code == 0, log
    target = tmp_path / "x.tar"
    contents = [ArchiveContents(source_dir="src", paths=["b", "c"])]
    assert bench.pod.pack(target, contents, bench.path("project"), "") == Packed(2)
    bench.pod.unpack([target.read_bytes()], bench.path("project/back"), "", overwrite=False)
    assert bench.run("cd back; cat b c; stat -c %h b c") == (0, "x\nx\n2\n2\n")


def test_an_absolute_source_directory(bench, tmp_path):
    bench.run("mkdir -p ../elsewhere; echo x >../elsewhere/f")
    contents = [ArchiveContents(source_dir=bench.path("elsewhere"), paths=["*"])]
    assert bench.pod.pack(tmp_path / "x.tar", contents, bench.path("project"), "") == Packed(1)


@pytest.mark.parametrize(("overwrite", "expected"), [(False, "old\nnew\n"), (True, "new\nnew\n")])
def test_what_exists_stays_unless_it_is_overwritten(bench, overwrite, expected):
    bench.run("echo old >one")
    pieces = [tar(("one", b"new\n"), ("two", b"new\n"))]
    bench.pod.unpack(pieces, bench.path("project"), "", overwrite=overwrite)
    assert bench.run("cat one two") == (0, expected)


def tar(*files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_hostile_archives_are_refused(bench):
    for name in ("../evil", "/evil", "a/../../evil"):
        with pytest.raises(BadRequestError, match="leave"):
            bench.pod.unpack([tar((name, b"x"))], bench.path("project"), "", overwrite=True)
    with pytest.raises(BadRequestError):
        bench.pod.unpack([b"nonsense" * 100], bench.path("project"), "", overwrite=True)


def test_a_missing_source_directory_is_said(bench, tmp_path):
    bench.run("true")
    contents = [ArchiveContents(source_dir="none", paths=["*"])]
    with pytest.raises(BadRequestError, match="none"):
        bench.pod.pack(tmp_path / "x.tar", contents, bench.path("project"), "")


def test_a_user_that_does_not_exist(bench):
    try:
        code, _ = bench.run("id", user="no-such-user")
    except AgolaError as error:
        assert "no-such-user" in str(error)  # noqa: PT017 - an engine may say it by the exit code
    else:
        assert code != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
def test_a_step_of_another_user(bench, tmp_path):
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    code, log = bench.run(
        "id -un; echo mine >file; stat -c %U file", user="nobody", working_dir=bench.path("w", "nobody")
    )
    assert (code, log) == (0, "nobody\nnobody\n")
    bench.pod.unpack([tar(("f", b"x"))], bench.path("w", "nobody"), "nobody", overwrite=True)
    code, log = bench.run("stat -c %U f", user="nobody", working_dir=bench.path("w", "nobody"))
    assert (code, log) == (0, "nobody\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
def test_archives_of_another_user_have_no_more_rights_than_it(driver, tmp_path):
    if not isinstance(driver, HostDriver):
        pytest.skip("a container's own files are not this machine's")
    bench = Bench(driver, tmp_path)
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    (secret / "key").write_text("x")
    bench.run("true")
    with pytest.raises(BadRequestError, match="secret"):
        bench.pod.pack(tmp_path / "x", [ArchiveContents(source_dir=str(secret), paths=["**"])], "/", "nobody")
    with pytest.raises(OSError, match=r"secret|denied"):
        bench.pod.unpack([tar(("f", b"x"))], str(secret), "nobody", overwrite=True)
    with pytest.raises(NotFoundError):
        b"".join(bench.pod.read(str(secret / "key"), "nobody"))
    assert [path.name for path in secret.iterdir()] == ["key"]
    bench.pod.close()


@pytest.fixture
def isolating():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    return HostDriver(isolation=Isolation.BUBBLEWRAP)


def test_no_variable_of_a_task_leaves_its_sandbox(isolating, tmp_path):
    """What decides which code is loaded reaches the step alone, not what makes its sandbox."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    bench = Bench(isolating, tmp_path)
    out = tmp_path / "outside"
    source, library = tmp_path / "attack.c", Path(bench.path("attack.so"))
    source.write_text(
        f'''#include <fcntl.h>
        __attribute__((constructor)) static void attack(void) {{ open("{out}", O_CREAT | O_WRONLY, 0600); }}'''
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    shell = Path(bench.path("rc"))
    shell.write_text(f"echo x >{out}\n")
    hostile = {
        **{name: str(library) for name in ("LD_PRELOAD", "LD_AUDIT")},
        **{name: str(library.parent) for name in ("LD_LIBRARY_PATH", "GCONV_PATH", "LOCPATH", "PATH")},
        **{name: str(shell) for name in ("BASH_ENV", "ENV")},
    }
    code, log = bench.run('echo "$LD_PRELOAD"', environment=hostile)
    assert (code, log.splitlines()[-1]) == (0, str(library)), "the step itself has them"
    assert not out.exists()
    with pytest.raises(UnavailableError, match="null byte"):
        bench.run("true", environment={"A": f"x\0--bind\0{tmp_path}\0{tmp_path}"})
    bench.pod.close()


def test_an_isolated_step_has_no_rights_to_leave_with(isolating, tmp_path):
    """As root, too: no capability, none to be gained, and what is mounted stays as it is."""
    bench, other = Bench(isolating, tmp_path), Bench(isolating, tmp_path, "other")
    other.run("echo secret >file")
    status = bench.run("cat /proc/self/status")[1]
    found = dict(line.split(":", 1) for line in status.splitlines())
    assert {found[name].strip() for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
    assert found["NoNewPrivs"].strip() == "1"
    marks = [Path(path, "agola-was-here") for path in ("/usr", "/etc", "/run", str(tmp_path))]
    tries = [
        "mount -o remount,rw,bind /",
        "umount -l " + str(tmp_path / "tasks"),
        "umount -l /run",
        "unshare -Urm sh -c 'mount -o remount,rw,bind /; umount -l "
        + str(tmp_path / "tasks")
        + "; touch /usr/agola-was-here'",
        "echo x >/proc/sys/kernel/hostname",
        *(f"touch {mark}" for mark in marks),
    ]
    _, log = bench.run(
        "set +e; " + "; ".join(tries) + f"; cat {other.path('project/file')}; ls -A /run {tmp_path}/tasks"
    )
    assert "secret" not in log
    assert not any(mark.exists() for mark in marks)
    bench.pod.close()
    other.pod.close()


@pytest.mark.parametrize("network", [False, True])
def test_an_isolated_step_has_a_network_only_where_it_is_given_one(isolating, tmp_path, network):
    driver = HostDriver(isolation=Isolation.BUBBLEWRAP, network=network)
    bench = Bench(driver, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        python = Path(sys.executable).resolve()  # one of a virtual environment below /tmp is hidden
        call = f"{python} -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 5)'"
        code, log = bench.run(call)
    assert (code == 0) is network, log
    bench.pod.close()


def test_an_isolated_step_sees_no_other_task_and_changes_nothing_else(isolating, tmp_path):
    one, two = Bench(isolating, tmp_path, "one"), Bench(isolating, tmp_path, "two")
    two.run("echo secret >file")
    code, log = one.run(f"cat {two.path('project/file')}")
    assert code != 0
    assert "secret" not in log
    assert one.run("touch /etc/agola-was-here")[0] != 0
    assert one.run(f"ln -s {two.path('project')} l")[0] == 0
    with pytest.raises(BadRequestError):
        one.pod.pack(tmp_path / "x", [ArchiveContents(source_dir="l", paths=["*"])], one.path("project"), "")
    with pytest.raises((OSError, UnavailableError)):
        one.pod.unpack([tar(("f", b"x"))], one.path("project/l"), "", overwrite=True)
    assert two.run("ls")[1] == "file\n"
    one.pod.close()
    two.pod.close()
