"""What every unit test shares."""

from hypothesis import HealthCheck, settings

# A busy machine is no failure: no test fails for how long an example took.
settings.register_profile("stoker", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stoker")
