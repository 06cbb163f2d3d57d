"""Support: files as released versions wrote them; `make.py` writes those of this version."""
