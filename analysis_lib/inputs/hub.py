"""A benchmark's files from the hub, or one line that says how to get them by hand."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from analysis_lib.errors import StudyError
from analysis_lib.inputs.formats import Format

ARCHIVES = ("*.zip", "*.tar", "*.tar.*")


def fetch(name: str, repo: str, revision: str | None, form: Format) -> Path:
    """The snapshot of a data set on the hub, without its archives: annotations and videos of this format.

    Raises StudyError if the revision is not a commit, the set is gated, or it is not in the cache of a machine without
    network; the line names the files and where to put them.
    """
    if not revision or not re.fullmatch(r"[0-9a-f]{40}", revision):
        wanted = f"as a hub id it needs its commit, {name}:{repo}@COMMIT with 40 hex digits"
        raise StudyError(f"there is no folder {repo}{'@' + revision if revision else ''} here; {wanted}")
    needed = (*form.annotations, f"{form.videos.partition('/')[0]}/*")
    by_hand = f"`hf download {repo} --repo-type dataset --revision {revision} --local-dir ROOT`"
    by_hand = f"on a machine with access {by_hand} (needed: {', '.join(needed)}), unpack, then use {name}:ROOT"
    return _snapshot(repo, revision, needed, by_hand)


@lru_cache(maxsize=4)
def _snapshot(repo: str, revision: str, needed: tuple[str, ...], by_hand: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # each retry prints lines that would drown the one that matters
    print(f"looking for {repo} at {revision} in the cache and on the hub", flush=True)
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, repo_type="dataset", revision=revision, allow_patterns=needed, ignore_patterns=list(ARCHIVES)
            )
        )
    except GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{repo}"
        raise StudyError(f"{repo} is gated: accept its terms on {page}, then `hf auth login`; or {by_hand}") from error
    except LocalEntryNotFoundError as error:
        raise StudyError(f"{repo} is not in the hub's cache and the hub cannot be reached: {by_hand}") from error
    except Exception as error:  # the client raises many kinds, also from the network libraries under it
        raise StudyError(f"{repo} cannot be downloaded ({type(error).__name__}): {by_hand}") from error
