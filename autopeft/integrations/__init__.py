"""Our samplers inside other frameworks, and our studies in their storages.

`autopeft.integrations.optuna` and `autopeft.integrations.ray_tune` import their framework when they are imported
themselves; the second needs the extra ``ray``.
"""

from autopeft.integrations._foreign import bind

__all__ = ["bind"]
