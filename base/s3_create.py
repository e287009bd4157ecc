"""Writing an object only if it is not there yet, over a network that loses answers."""

import uuid
from typing import TYPE_CHECKING

from hvc.base.s3_errors import status_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_WRITER = "hvc-writer"


class Creation:
    """One conditional write, which may take several attempts.

    An attempt whose answer got lost may have written the object, and the next one is refused. The
    object then carries this creation's own mark, and nobody else's has it, whatever the content.
    """

    def __init__(self, client: "S3Client", bucket: str, key: str, data: bytes) -> None:
        self._client, self._bucket, self._key, self._data = client, bucket, key, data
        self._mark = uuid.uuid4().hex
        self._attempts = 0
        self._is_conditional = True

    def attempt(self) -> bool:
        """True once the object is ours, False when somebody else wrote it."""
        from botocore.exceptions import ClientError

        self._attempts += 1
        if not self._is_conditional:
            return self._look_then_put()
        try:
            self._put(IfNoneMatch="*")
        except ClientError as error:
            if status_of(error) == 412:
                return self._attempts > 1 and self._is_ours()
            if status_of(error) != 501:
                raise
            self._is_conditional = False
            return self._look_then_put()
        return True

    def _look_then_put(self) -> bool:
        """For a server without conditional writes: two writers at the same instant would both pass.

        Shards carry content hashes, so the loser is found by `verify`.
        """
        from botocore.exceptions import ClientError

        try:
            return self._is_ours()
        except ClientError as error:
            if status_of(error) != 404:
                raise
        self._put()
        return True

    def _put(self, **condition: str) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._key,
            Body=self._data,
            Metadata={_WRITER: self._mark},
            **condition,  # type: ignore[arg-type]
        )

    def _is_ours(self) -> bool:
        answer = self._client.head_object(Bucket=self._bucket, Key=self._key)
        return answer.get("Metadata", {}).get(_WRITER) == self._mark
