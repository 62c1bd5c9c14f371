"""The folder swap, killed for real: before every single file operation of a publishing process."""

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from tfprune.errors import ArtifactError
from tfprune.export.atomic import owned_names, recover, replacing

REPORT = '{"tfprune_export": 1, "artifacts": [{"file": "model.tflite"}, {"file": "saved_model"}]}'

# Reads jobs from stdin, and does each in a fork of itself: a fresh interpreter for every kill would
# take minutes. A job writes one set, and dies without a trace before its n-th file operation.
SERVER = """
    import json, os, sys
    from tfprune.export import atomic

    EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree",
              "os.chmod", "ctypes.dlsym", "os.listdir", "os.scandir"}

    def work(target, content, deadline, exchange):
        if not exchange:
            atomic._exchange = lambda first, second: False
        count = 0

        def die(event, args):
            nonlocal count
            count += event in EVENTS
            if count == deadline:
                os._exit(9)

        sys.addaudithook(die)
        with atomic.replacing(target, ["model.tflite", "saved_model", "report.json"]) as folder:
            (folder / "model.tflite").write_text(content)
            (folder / "saved_model").mkdir()
            (folder / "saved_model" / "weights").write_text(content)
            (folder / "report.json").write_text(REPORT)

    for line in sys.stdin:
        child = os.fork()
        if not child:
            work(*json.loads(line))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
""".replace("REPORT)", f"{REPORT!r})")


class Server:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, target, content, deadline=-1, exchange=True):
        job = json.dumps([str(target), content, deadline, exchange])
        self.process.stdin.write(job + "\n")
        self.process.stdin.flush()

    def result(self):
        return int(self.process.stdout.readline())

    def write(self, *job):
        self.start(*job)
        return self.result()

    def close(self):
        self.process.communicate()


@pytest.fixture(scope="module")
def servers():
    pool = [Server() for _ in range(3)]
    yield pool
    for server in pool:
        server.close()


@pytest.fixture(scope="module")
def server(servers):
    return servers[0]


def write(target, content, names=("model.tflite", "saved_model", "report.json")):
    with replacing(target, names) as folder:
        (folder / "model.tflite").write_text(content)
        (folder / "saved_model").mkdir()
        (folder / "saved_model" / "weights").write_text(content)
        (folder / "report.json").write_text(REPORT)


def contents(target):
    return {
        "model.tflite": (target / "model.tflite").read_text(),
        "weights": (target / "saved_model" / "weights").read_text(),
        "report": (target / "report.json").read_text(),
    }


def complete(content):
    return {"model.tflite": content, "weights": content, "report": REPORT}


def test_importing_the_swap_loads_no_tensorflow():
    code = "import sys, tfprune.export; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("exchange", [True, False])
def test_a_complete_set_survives_a_kill_before_any_file_operation(tmp_path, server, exchange):
    deadline, outcomes = 0, set()
    while True:
        deadline += 1
        target = tmp_path / str(deadline) / "build"
        write(target, "old")
        (target / "labels.txt").write_text("mine")
        code = server.write(target, "new", deadline, exchange)
        if exchange:
            # Not even for a moment without a complete set at its place.
            assert contents(target) in (complete("old"), complete("new"))
        recover(target)
        assert contents(target) in (complete("old"), complete("new"))
        outcomes.add(contents(target)["model.tflite"])
        assert (target / "labels.txt").read_text() == "mine"
        assert os.listdir(target.parent) == ["build"]
        if code == 0:
            break
        assert code == 9
    assert deadline > 20
    assert outcomes == {"old", "new"}


def test_a_first_export_that_is_killed_leaves_nothing_or_everything(tmp_path, server):
    deadline, code = 0, 9
    while code:
        deadline += 1
        target = tmp_path / str(deadline) / "build"
        code = server.write(target, "new", deadline)
        recover(target)
        assert not target.exists() or contents(target) == complete("new")
    assert deadline > 5


def test_the_next_export_recovers_by_itself(tmp_path, server):
    target = tmp_path / "build"
    write(target, "old")
    (target / "labels.txt").write_text("mine")
    for deadline in range(1, 40, 3):
        server.write(target, "new", deadline, False)
    write(target, "newest")
    assert contents(target) == complete("newest")
    assert (target / "labels.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["build"]


def test_an_error_in_the_block_leaves_the_former_set(tmp_path):
    write(tmp_path / "build", "old")
    with (
        pytest.raises(RuntimeError, match="conversion"),
        replacing(tmp_path / "build", ["model.tflite"]) as folder,
    ):
        (folder / "model.tflite").write_text("new")
        raise RuntimeError("conversion")
    assert contents(tmp_path / "build") == complete("old")
    assert os.listdir(tmp_path) == ["build"]


def test_artifacts_that_are_not_exported_again_disappear_and_foreign_files_stay(tmp_path):
    target = tmp_path / "build"
    write(target, "old")
    (target / "notes").mkdir()
    (target / "notes" / "a.txt").write_text("mine")
    with replacing(target, ["other.tflite", "report.json"]) as folder:
        (folder / "other.tflite").write_text("new")
        (folder / "report.json").write_text(
            '{"tfprune_export": 1, "artifacts": [{"file": "other.tflite"}]}'
        )
    assert sorted(os.listdir(target)) == ["notes", "other.tflite", "report.json"]
    assert (target / "notes" / "a.txt").read_text() == "mine"


def test_processes_that_export_to_one_folder_take_turns(tmp_path, servers):
    target = tmp_path / "build"
    for _ in range(20):
        for server in servers:
            server.start(target, str(server.process.pid))
    assert [server.result() for _ in range(20) for server in servers] == [0] * 60
    assert contents(target) == complete(contents(target)["model.tflite"])
    assert os.listdir(tmp_path) == ["build"]


def test_an_export_waits_for_the_one_that_is_running(tmp_path, server):
    with replacing(tmp_path / "build", []) as folder:
        (folder / "model.tflite").write_text("first")
        server.start(tmp_path / "build", "second")
        time.sleep(0.3)
        # It would have emptied this folder by now.
        assert (folder / "model.tflite").read_text() == "first"
        (folder / "report.json").write_text(REPORT)
    assert server.result() == 0
    assert contents(tmp_path / "build") == complete("second")


def test_a_file_that_no_export_wrote_is_not_overwritten(tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "model.tflite").write_text("mine")
    with pytest.raises(ArtifactError, match="holds model.tflite, which no export"):
        write(tmp_path / "build", "new")
    assert (tmp_path / "build" / "model.tflite").read_text() == "mine"


def test_a_report_of_another_tool_claims_nothing(tmp_path):
    (tmp_path / "report.json").write_text('{"artifacts": [{"file": "data.csv"}]}')
    assert owned_names(tmp_path) == set()


def test_a_name_taken_after_a_kill_is_reported_and_nothing_is_deleted(tmp_path):
    old = tmp_path / ".build.tfprune-old"
    write(tmp_path / "build", "new")
    old.mkdir()
    (old / "labels.txt").write_text("former")
    (tmp_path / "build" / "labels.txt").write_text("newer")
    with pytest.raises(ArtifactError, match="was created since"):
        recover(tmp_path / "build")
    assert (old / "labels.txt").read_text() == "former"


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "build").write_text("")
    with pytest.raises(ArtifactError, match="is a file"):
        write(tmp_path / "build", "new")


def test_a_path_below_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="Cannot write the export folder"):
        write(tmp_path / "file" / "build", "new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_an_error(tmp_path):
    (tmp_path / "build").mkdir(mode=0o555)
    with pytest.raises(ArtifactError, match="not writable"):
        write(tmp_path / "build", "new")


def test_the_working_directory_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for target in (".", ".."):
        with pytest.raises(ArtifactError, match="is the working directory or holds it"):
            write(target, "new")


def test_a_mount_point_is_refused():
    with pytest.raises(ArtifactError, match="mount point"):
        write("/proc", "new")


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == complete("new")
