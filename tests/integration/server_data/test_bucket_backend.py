"""Blobs in an S3-compatible bucket, against moto's server."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from server.blobs.bucket import BucketBackend
from server.blobs.settings import BlobSettings
from server.blobs.store import BlobStore, open_store


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    secrets = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **secrets).create_bucket(Bucket="blobs")
    yield url
    server.stop()


@pytest.fixture
def store(endpoint: str, tmp_path: Path) -> BlobStore:
    return open_store(
        BlobSettings(
            state_dir=tmp_path,
            url="s3://blobs/some/prefix",
            endpoint=endpoint,
            region="us-east-1",
            access_key_id="k",
            secret_access_key=SecretStr("s"),
            reserve_bytes=0,
        )
    )


def test_a_cut_upload_is_resumed_into_the_bucket_and_read_back_in_ranges(store: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(9 << 20)  # more than one part and one read
    sha = hashlib.sha256(data).hexdigest()
    first = store.begin("p", sha, 0, 0, 1 << 30)
    first.write(data[:1000])
    first.close()
    assert store.backend.size(sha) is None
    second = store.begin("p", sha, 1000, 0, 1 << 30)
    second.write(data[1000:])
    assert store.finish(second) == len(data)
    second.close()
    assert isinstance(store.backend, BucketBackend)
    assert store.backend.size(sha) == len(data)
    assert b"".join(store.read(sha, 0, len(data))) == data
    assert b"".join(store.read(sha, 5, (8 << 20) + 5)) == data[5 : (8 << 20) + 5]
    assert not list((tmp_path / "uploads").iterdir())
    ((listed, stored_at),) = [entry for entry in store.backend.listing(sha[:2]) if entry[0] == sha]
    assert listed == sha
    assert abs(time.time() - stored_at) < 3600
    store.backend.remove(sha)
    store.backend.remove(sha)
    assert store.backend.size(sha) is None
    with pytest.raises(FileNotFoundError):
        list(store.read(sha, 0, 1))


def test_nothing_of_a_wrong_upload_reaches_the_bucket(store: BlobStore) -> None:
    sha = hashlib.sha256(b"right").hexdigest()
    upload = store.begin("p", sha, 0, 0, 1 << 30)
    upload.write(b"wrong")
    with pytest.raises(Exception, match=sha):
        store.finish(upload)
    upload.close()
    assert store.backend.size(sha) is None


def test_secrets_stay_out_of_what_is_printed(store: BlobStore) -> None:
    assert "'s'" not in repr(store.settings)
