"""The client: a page in the browser on which a study is dropped, recognised, and looked at.

:func:`build_app` builds the web service; ``tools/serve.py`` runs it. Needs ``lung_d2[client]``.
"""

from lung_d2.lazy import export_lazily

_EXPORTS = {
    "Archive": "lung_d2.client.archive",
    "Jobs": "lung_d2.client.jobs",
    "Limits": "lung_d2.client.uploads",
    "Store": "lung_d2.client.store",
    "build_app": "lung_d2.client.app",
    "start_node": "lung_d2.client.node",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
