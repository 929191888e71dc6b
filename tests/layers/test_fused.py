"""What is turned off while layers are measured, and put back."""

import pytest
import torch

from lowrank_utils.layers.fused import plainly


@pytest.mark.parametrize("fast", [True, False])
def test_plainly_turns_off_the_fused_paths_autocast_and_inference_mode_and_puts_them_back(fast):
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        with torch.autocast("cpu"), torch.inference_mode():
            with plainly():
                assert not torch.backends.mha.get_fastpath_enabled()
                assert not torch.is_autocast_enabled("cpu") and not torch.is_inference_mode_enabled()
            assert torch.backends.mha.get_fastpath_enabled() is fast
            assert torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled()
            with pytest.raises(KeyError), plainly():
                raise KeyError
            assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
