from distillctl.testing import MethodContract
from distillctl_ttm.plugin import TTM, WTTM


class TestTTM(MethodContract):
    spec = TTM


class TestWTTM(MethodContract):
    spec = WTTM


class TestWTTMThatSharpens(MethodContract):
    spec = WTTM
    options = {"gamma": 2.0}
