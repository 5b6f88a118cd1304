"""Uploads cut anywhere, resumed, damaged, raced and left behind; a real folder, real files."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.blobs.failures import DigestMismatch, StorageFull, TooLarge, WrongOffset
from server.blobs.local import LocalBackend
from server.blobs.partial import Partials, Upload
from server.blobs.settings import BlobSettings
from server.blobs.store import BlobStore, open_store

DATA = os.urandom(257)
SHA = hashlib.sha256(DATA).hexdigest()
BIG = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_store(BlobSettings(state_dir=tmp_path, reserve_bytes=0))


def begin(store: BlobStore, offset: int = 0, sha: str = SHA, project: str = "p") -> Upload:
    return store.begin(project, sha, offset, 0, BIG)


def test_an_upload_cut_at_every_byte_is_resumed_to_the_same_blob(tmp_path: Path) -> None:
    for cut in range(len(DATA) + 1):
        store = open_store(BlobSettings(state_dir=tmp_path / str(cut), reserve_bytes=0))
        first = begin(store)
        first.write(DATA[:cut])
        first.close()
        assert store.partials.stored("p", SHA) == cut
        second = begin(store, cut)
        second.write(DATA[cut:])
        assert store.finish(second) == len(DATA)
        second.close()
        assert b"".join(store.read(SHA, 0, len(DATA))) == DATA
        assert store.partials.stored("p", SHA) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 257), max_size=6), st.integers(1, 100))
def test_any_sequence_of_cuts_and_overlapping_restarts_ends_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], piece: int
) -> None:
    store = open_store(BlobSettings(state_dir=tmp_path_factory.mktemp("s"), reserve_bytes=0))
    for cut in cuts:
        offset = min(cut, store.partials.stored("p", SHA))  # a client may restart earlier than it must
        upload = begin(store, offset)
        for at in range(offset, max(offset, cut), piece):
            upload.write(DATA[at : min(at + piece, cut)])
        upload.close()
    last = begin(store, store.partials.stored("p", SHA))
    last.write(DATA[last.bytes :])
    assert store.finish(last) == len(DATA)
    last.close()
    assert b"".join(store.read(SHA, 10, 20)) == DATA[10:20]


def test_an_offset_beyond_what_is_stored_is_refused_with_the_right_one(store: BlobStore) -> None:
    upload = begin(store)
    upload.write(DATA[:7])
    upload.close()
    with pytest.raises(WrongOffset) as refused:
        begin(store, 8)
    assert refused.value.offset == 7


def test_bytes_that_do_not_hash_to_their_name_leave_nothing(store: BlobStore) -> None:
    upload = begin(store)
    upload.write(DATA[:-1] + b"x")
    with pytest.raises(DigestMismatch):
        store.finish(upload)
    upload.close()
    assert store.partials.stored("p", SHA) == 0
    assert store.backend.size(SHA) is None


def test_a_stored_prefix_that_was_damaged_on_disk_is_found(store: BlobStore) -> None:
    upload = begin(store)
    upload.write(DATA[:100])
    upload.close()
    (path,) = [p for p in store.partials.root.iterdir() if p.is_file()]
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    upload = begin(store, 100)
    upload.write(DATA[100:])
    with pytest.raises(DigestMismatch):
        store.finish(upload)
    upload.close()


def test_two_uploads_of_one_digest_at_once_both_succeed(store: BlobStore) -> None:
    one, other = begin(store), begin(store)
    one.write(DATA[:50])
    other.write(DATA)
    assert store.finish(other) == len(DATA)
    other.close()
    one.write(DATA[50:])
    assert store.finish(one) == len(DATA)
    one.close()
    assert b"".join(store.read(SHA, 0, len(DATA))) == DATA
    assert not [p for p in store.partials.root.iterdir() if p.is_file()]


def test_a_second_uploader_cannot_continue_what_another_writes(store: BlobStore) -> None:
    one = begin(store)
    one.write(DATA[:50])
    with pytest.raises(WrongOffset) as refused:
        begin(store, 50)
    assert refused.value.offset == 0
    one.close()


def test_a_project_cannot_continue_another_projects_upload(store: BlobStore) -> None:
    upload = begin(store, project="p")
    upload.write(DATA[:-1])
    upload.close()
    with pytest.raises(WrongOffset) as refused:
        begin(store, len(DATA) - 1, project="q")
    assert refused.value.offset == 0


def test_more_than_allowed_leaves_nothing(store: BlobStore) -> None:
    upload = store.begin("p", SHA, 0, 0, 100)
    upload.write(DATA[:100])
    with pytest.raises(TooLarge):
        upload.write(DATA[100:101])
    upload.close()
    assert store.partials.stored("p", SHA) == 0


def test_a_full_disk_leaves_nothing(store: BlobStore) -> None:
    """/dev/full answers every write with ENOSPC: the file of the upload is replaced by it."""
    upload = begin(store)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, upload._fd)
    os.close(full)
    with pytest.raises(StorageFull):
        upload.write(DATA)
    upload.close()
    assert not upload.path.exists()


def test_the_reserve_is_never_touched(tmp_path: Path) -> None:
    store = open_store(BlobSettings(state_dir=tmp_path, reserve_bytes=2**62))
    with pytest.raises(StorageFull):
        begin(store)


def test_only_uploads_that_nobody_continues_are_swept(store: BlobStore) -> None:
    old, busy = begin(store), begin(store, sha="1" * 64)
    for upload in (old, busy):
        upload.write(b"x")
        os.utime(upload.path, (0, 0))
    old.close()
    fresh = begin(store, sha="2" * 64)
    fresh.write(b"x")
    fresh.close()
    assert store.partials.sweep(3600) == 1
    assert {p.name[:1] for p in store.partials.root.iterdir()} == {"1", "2"}
    busy.close()


def test_blobs_are_private_files_under_two_levels(store: BlobStore, tmp_path: Path) -> None:
    upload = begin(store)
    upload.write(DATA)
    store.finish(upload)
    upload.close()
    path = tmp_path / "blobs" / SHA[:2] / SHA[2:4] / SHA
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o400
    backend = store.backend
    assert isinstance(backend, LocalBackend)
    ((listed, stored_at),) = backend.listing(SHA[:2])
    assert listed == SHA
    assert abs(stored_at - time.time()) < 60


def test_an_empty_file_is_a_blob(store: BlobStore) -> None:
    sha = hashlib.sha256(b"").hexdigest()
    upload = begin(store, sha=sha)
    assert store.finish(upload) == 0
    upload.close()
    assert store.backend.size(sha) == 0


def test_an_unknown_kind_of_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="STOKER_BLOB_URL"):
        open_store(BlobSettings(state_dir=tmp_path, url="ftp://somewhere/x"))


def test_partials_do_not_follow_links(tmp_path: Path) -> None:
    partials = Partials(tmp_path / "u")
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "u" / f"{SHA}.p").symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        partials.begin("p", SHA, 0, BIG)
    assert target.read_bytes() == b"precious"
