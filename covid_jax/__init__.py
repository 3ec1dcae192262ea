"""Five published methods for diagnosing COVID-19 from chest CT and X-ray, in JAX and Flax."""


class UserError(Exception):
    """What a user can cause and mend: one line that names the thing and says what to do. The command exits with 2."""
