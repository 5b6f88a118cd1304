"""What can go wrong between bytes and disk, apart from how it is said over HTTP."""


class BlobFailure(Exception):
    """Root: the bytes were not stored."""


class WrongOffset(BlobFailure):
    """The upload starts elsewhere than where the stored part ends; `offset` is where it must start."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(f"continue at {offset}")


class DigestMismatch(BlobFailure):
    """The whole does not hash to its name; nothing of it is kept."""


class TooLarge(BlobFailure):
    """More bytes than one blob may have; nothing of it is kept."""


class StorageFull(BlobFailure):
    """No room on the disk; nothing of it is kept."""
