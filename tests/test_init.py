"""What a reader types after `import fer_lab`."""

import subprocess
import sys

import pytest

import fer_lab


def test_every_public_name_is_found_and_shown():
    for name in fer_lab.__all__:
        assert callable(getattr(fer_lab, name)), name
        assert getattr(fer_lab, name).__name__ == name
        assert name in dir(fer_lab)
    assert {*dir(fer_lab)} - {*vars(fer_lab)} == {*fer_lab.__all__}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fer_lab' has no attribute 'fits'"):
        fer_lab.fits  # noqa: B018


def test_importing_the_package_does_not_wait_for_torch():
    code = (
        "import sys, fer_lab\nprint('torch' in sys.modules, fer_lab.__version__)\n"
        "from fer_lab import list_models\nprint('torch' in sys.modules, list_models()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"False {fer_lab.__version__}\nTrue baseline\n"
