"""What can be asked of the guard. The fallback is each method's own; ROME's gave the choice its name."""

OFF, WARN, REFUSE, FALL_BACK = CHOICES = ("off", "warn", "refuse", "r-rome")
