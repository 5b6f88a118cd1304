"""What is staged is what is written, whatever happens to the tensors afterwards, and a writer that fails says so."""

import errno
import os
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Set
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from worker.trainer.staging import Staging, TensorFile
from worker.trainer.staging.copied import Copied, Copies, Taking, Tensors
from worker.trainer.staging.forked import Forked
from worker.trainer.staging.room import room
from worker.trainer.staging.sheet import CODES

MODES = ("off", "fork", "copy")
TENSORS = {
    "scalar": torch.tensor(2.5),
    "matrix": torch.arange(60, dtype=torch.float64).reshape(5, 4, 3),
    "turned": torch.arange(12.0).reshape(3, 4).t(),
    "half": torch.arange(7).to(torch.bfloat16),
    "flags": torch.tensor([True, False, True]),
    "nothing": torch.empty(0, 3),
    "steps": torch.tensor([2**60]),
}


@pytest.mark.parametrize("mode", MODES)
def test_another_library_reads_what_was_written(mode: str, tmp_path: Path) -> None:
    staging = Staging(mode)  # type: ignore[arg-type]  # one of the modes
    task = staging.begin(tmp_path / "new", {"t.safetensors": TENSORS}, {"a.json": b"{}"}, [], wait=False)
    written = {file.path: file for file in task.outcome()}
    read = load_file(tmp_path / "new" / "t.safetensors")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
    assert (tmp_path / "new" / "a.json").read_bytes() == b"{}"
    shown = subprocess.run(
        ["sha256sum", "t.safetensors", "a.json"], cwd=tmp_path / "new", capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [written[n].sha256 for n in ("t.safetensors", "a.json")]
    assert written["t.safetensors"].bytes == (tmp_path / "new" / "t.safetensors").stat().st_size


@pytest.mark.proves("CKPT-01")
@pytest.mark.parametrize("mode", ["fork", "copy"])
def test_later_steps_do_not_show(mode: str, tmp_path: Path) -> None:
    """The writer is held back by a pipe that nobody reads yet, until the tensors are other ones."""
    os.mkfifo(tmp_path / "model.safetensors")
    weight = torch.arange(300_000.0)
    staging = Staging(mode)  # type: ignore[arg-type]  # one of the modes
    task = staging.begin(tmp_path, {"model.safetensors": {"w": weight}}, {}, [], wait=False)
    weight.mul_(-1)
    assert not task.ended()
    (tmp_path / "read").write_bytes((tmp_path / "model.safetensors").read_bytes())
    assert torch.equal(load_file(tmp_path / "read")["w"], torch.arange(300_000.0))
    with pytest.raises(OSError):  # noqa: PT011  # a pipe cannot be flushed to a disk
        task.outcome()
    assert task.ended()


def test_what_may_wait_is_copied_by_the_thread(tmp_path: Path) -> None:
    """The thread is held back by nothing: only `taken` says when the weight may change; the buffer may change at once."""
    weight, buffer, turned = torch.arange(4_000_000.0), torch.arange(9.0), torch.arange(12.0).reshape(3, 4)
    meant = {"weight": weight.clone(), "buffer": buffer.clone(), "turned": turned.t().clone()}
    still = {tensor.untyped_storage().data_ptr() for tensor in (weight, turned)}
    tensors = {"m.safetensors": {"weight": weight, "buffer": buffer, "turned": turned.t()}}
    assert len(Copies().take(tensors, still).later) == 1, "what does not lie in one piece is copied at once"
    task = Staging("copy").begin(tmp_path, tensors, {}, [], wait=False, later=still)
    buffer.zero_()
    turned.zero_()
    task.taken()
    weight.zero_()
    task.outcome()
    read = load_file(tmp_path / "m.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in meant.items())


def test_a_copy_that_fails_lets_the_run_go_on(tmp_path: Path) -> None:
    class Broken(Copies):
        def take(self, tensors: Tensors, later: Set[int] = frozenset()) -> Taking:
            taking = super().take(tensors, later)
            taking.later.append(lambda: [][0])
            return taking

    staging = Staging("copy", copies=Broken())
    task = staging.begin(tmp_path, {"m.safetensors": {"w": torch.zeros(9)}}, {}, [], wait=False)
    task.taken()
    with pytest.raises(OSError, match="IndexError"):
        task.outcome()


def test_copies_in_host_memory_are_given_back() -> None:
    copies = Copies()
    home = weakref.ref(copies.take({"m": {"w": torch.zeros(1000)}}).tensors["m"]["w"])
    assert home() is None


@pytest.mark.parametrize("mode", MODES)
def test_full_disk_is_told(mode: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").symlink_to("/dev/full")
    staging = Staging(mode)  # type: ignore[arg-type]  # one of the modes
    task = staging.begin(tmp_path, {"m.safetensors": {"w": torch.zeros(100_000)}}, {}, [], wait=False)
    with pytest.raises(OSError, match="No space left") as error:
        task.outcome()
    assert error.value.errno == errno.ENOSPC


def held_back(tmp_path: Path) -> Forked:
    os.mkfifo(tmp_path / "m.safetensors")
    task = Staging("fork").begin(tmp_path, {"m.safetensors": {"w": torch.zeros(9)}}, {}, [], wait=False)
    assert isinstance(task, Forked)
    return task


def test_killed_writer_is_told(tmp_path: Path) -> None:
    task = held_back(tmp_path)
    assert not task.ended()
    os.kill(task.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="killed by signal 9"):
        task.outcome()
    with pytest.raises(ChildProcessError):
        os.waitpid(task.pid, os.WNOHANG)


def test_hanging_writer_is_ended(tmp_path: Path) -> None:
    task = held_back(tmp_path)
    task.deadline = 0.0
    with pytest.raises(OSError, match="did not end") as error:
        task.outcome()
    assert error.value.errno == errno.ETIMEDOUT
    with pytest.raises(ProcessLookupError):
        os.kill(task.pid, 0)


ORPHAN = """
import os, sys, torch
from pathlib import Path
from worker.trainer.staging import Staging
into = Path(sys.argv[1])
os.mkfifo(into / "m.safetensors")
keep = os.open("/", os.O_RDONLY)
task = Staging("fork").begin(into, {"m.safetensors": {"w": torch.zeros(100_000)}}, {}, [], wait=False)
print(task.pid, flush=True)
sys.stdin.read()
"""


def test_writer_dies_with_its_run_and_holds_nothing_open(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        writer = int(run.stdout.readline())
        fd = os.pidfd_open(writer)
        reader = os.open(tmp_path / "m.safetensors", os.O_RDONLY)
        assert os.read(reader, 1)  # the writer has it open, and is not done: it holds more than a pipe
        open_files = {os.readlink(path) for path in Path(f"/proc/{writer}/fd").iterdir() if int(path.name) > 2}
        run.kill()
    assert "/" not in open_files
    assert str(tmp_path / "m.safetensors") in open_files
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(60_000), "the writer outlives its run"
    os.close(reader)
    os.close(fd)


def test_without_room_the_run_waits(tmp_path: Path) -> None:
    staging = Staging("fork", room=lambda: 4000)
    assert not isinstance(begin(staging, tmp_path, 1000), Forked)
    assert isinstance(begin(staging, tmp_path, 100), Forked)
    assert not isinstance(begin(Staging("copy", room=lambda: 0), tmp_path, 1), Copied)


def begin(staging: Staging, into: Path, size: int) -> object:
    task = staging.begin(into, {"m.safetensors": {"w": torch.zeros(size)}}, {}, [], wait=False)
    task.outcome()
    return task


def test_room_is_what_the_narrowest_group_leaves(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 90 kB\n")
    (tmp_path / "own").write_text("0::/outer/inner\n")
    inner = tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    assert room(tmp_path / "meminfo", tmp_path / "own", tmp_path / "groups") == 90 * 1024
    for folder, most in ((inner, "max"), (inner.parent, "50000")):
        (folder / "memory.max").write_text(most + "\n")
        (folder / "memory.current").write_text("30000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 5000\n")
    assert room(tmp_path / "meminfo", tmp_path / "own", tmp_path / "groups") == 25_000


@pytest.mark.parametrize("dtype", list(CODES), ids=str)
def test_boxes_are_the_slices_that_another_library_reads(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = (torch.arange(7 * 6 * 5) % 100).to(dtype).reshape(7, 6, 5)
    save_file({"w": whole, "v": whole[0, 0].clone()}, tmp_path / "t.safetensors")
    with TensorFile(tmp_path / "t.safetensors") as file, safe_open(tmp_path / "t.safetensors", "pt") as other:
        for offset, shape in (((0, 0, 0), (7, 6, 5)), ((2, 0, 0), (3, 6, 5)), ((1, 2, 3), (4, 3, 2)), ((6, 5, 4), (1, 1, 1))):
            part = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
            expected = other.get_slice("w")[part] if dtype in SLICED else whole[part]
            assert torch.equal(file.read("w", offset, shape).view(torch.uint8), expected.contiguous().view(torch.uint8))
        assert torch.equal(file.read("v", (1,), (3,)).view(torch.uint8), whole[0, 0, 1:4].contiguous().view(torch.uint8))


SLICED = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)


@pytest.mark.parametrize("broken", [b"", b"\x00" * 8, b"\xff" * 20, (10).to_bytes(8, "little") + b'{"w":1}   '])
def test_what_is_no_such_file_is_refused(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(broken)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        TensorFile(tmp_path / "t")


def test_file_cut_short_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(100)}, tmp_path / "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-10])
    with TensorFile(tmp_path / "t") as file, pytest.raises(ValueError, match="too early"):
        file.read("w", (0,), (100,))
