from __future__ import annotations

import warnings

from lung_d2.quiet import ignore_deprecations


def test_deprecations_of_torch_are_ignored_and_nothing_else():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ignore_deprecations()
        warnings.warn("`torch.jit.script` is deprecated. Use torch.compile.", FutureWarning, stacklevel=1)
        warnings.warn("torch.meshgrid: in an upcoming release, it will be required", UserWarning, stacklevel=1)
        warnings.warn("the file is damaged", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["the file is damaged"]
