"""Every bad record of the log, and no other, is a dead letter: once, with its bytes."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.cli.audit.tally import Tally, Topics
from pipeline.messages.records import Record


def check_dead_letters(topics: Topics, tally: Tally) -> None:
    """One dead letter for each bad record of the log, with its bytes and a right reason."""
    for partition, state in sorted(topics.inputs.items()):
        letters: dict[int, list[Record]] = {}
        for letter in topics.dead_letters.get(partition, []):
            headers = _errors_of(letter)
            try:
                offset = int(headers.get("offset", ""))
            except ValueError:
                tally.broken(f"partition {partition}: a dead letter does not say its offset")
                continue
            if (headers.get("topic"), headers.get("partition")) != (
                topics.input_topic,
                str(partition),
            ):
                tally.broken(f"partition {partition}: a dead letter names another source")
            letters.setdefault(offset, []).append(letter)
        oldest = min(letters, default=0)
        for offset, bad in state.bad.items():
            found = letters.get(offset, [])
            if not found and partition in topics.dead_letters_cut and offset < oldest:
                tally.unchecked(1, "retention has cut the dead letters")
                continue
            tally.n_checked += 1
            wanted = " or ".join(sorted(bad.reasons))
            if len(found) != 1:
                tally.broken(
                    f"partition {partition}, offset {offset}: bad ({wanted}), "
                    f"but there are {len(found)} dead letters of it"
                )
                continue
            headers = _errors_of(found[0])
            reason = headers.get("exception.class.name")
            if reason not in bad.reasons:
                tally.broken(
                    f"partition {partition}, offset {offset}: the reason is {wanted}, "
                    f"but its dead letter says {reason}"
                )
            if not _is_verbatim(found[0], bad.record, headers):
                tally.broken(
                    f"partition {partition}, offset {offset}: the dead letter holds other bytes"
                )
        for offset in letters.keys() - state.bad.keys():
            if offset in state.offsets:
                tally.broken(
                    f"partition {partition}, offset {offset}: is a dead letter, "
                    "but nothing is wrong with it"
                )
            elif state.whole or offset >= topics.committed[partition]:
                tally.broken(f"partition {partition}: a dead letter of {offset}, where nothing is")
            else:
                tally.unchecked(1, "the bad record itself is no longer in the log")


def _errors_of(letter: Record) -> dict[str, str]:
    return {
        name.removeprefix("eddy.errors."): (value or b"").decode("utf-8", "replace")
        for name, value in letter.headers
        if name.startswith("eddy.errors.")
    }


def _is_verbatim(letter: Record, record: Record, headers: Mapping[str, str]) -> bool:
    """Left out are values that are too large and oversized keys; then their lengths are told."""
    value_fits = letter.value == record.value or (
        not letter.value and headers.get("value.bytes") == str(len(record.value or b""))
    )
    key_fits = letter.key == record.key or (
        not letter.key and headers.get("key.bytes") == str(len(record.key or b""))
    )
    return value_fits and key_fits
