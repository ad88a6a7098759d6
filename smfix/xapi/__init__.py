"""The pool database (XAPI): how it is reached, and what it says of disks as values."""
