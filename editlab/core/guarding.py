"""The guard's choices. Each method names its own fallback; the choice "r-rome" is named after ROME's."""

OFF, WARN, REFUSE, FALL_BACK = CHOICES = ("off", "warn", "refuse", "r-rome")
