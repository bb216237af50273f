"""The broker beside the runtime: access rules, a mosquitto set up for the fleet, a Python one."""
