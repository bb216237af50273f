"""The fleet on disk: the CA's directory, a member's directory, enrolment between the two."""
