#!/usr/bin/env python3
"""The Redfish service of one lab host: sushy-tools' emulator, whose power button is the host's real power.

redfish.py LAB HOST CONFIG: the emulator's own configuration, and bmc.sh of this folder as its chassis, so that faults
of the simulated BMC (HOST.stuck, HOST.fail, HOST.slow) hold for Redfish too.
"""
import pathlib
import subprocess
import sys

from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems.fakedriver import FakeDriver

lab, host, config = sys.argv[1:4]
chassis = pathlib.Path(__file__).resolve().parent / "bmc.sh"


def press(*words):
    ended = subprocess.Popen([chassis, lab, host, *words], stdout=subprocess.PIPE, text=True)
    said, _ = ended.communicate()
    # The emulator reaps every child, and may have taken this one's exit code: what is printed counts.
    if ended.returncode not in (0, None):
        raise error.FishyError("the chassis does not answer")
    return said.strip()


def get_power_state(self, identity):
    said = press("get", "power")
    if said not in ("power:0", "power:1"):
        raise error.FishyError("the chassis does not answer")
    return "On" if said == "power:1" else "Off"


def set_power_state(self, identity, state):
    if state in ("ForceOff", "On", "ForceOn"):
        press("set", "power", "0" if state == "ForceOff" else "1")
    else:
        raise error.NotSupportedError(f"Power state {state} is not supported")


FakeDriver.get_power_state = get_power_state
FakeDriver.set_power_state = set_power_state
sys.argv = [sys.argv[0], "--config", config]
sys.exit(emulator.main())
