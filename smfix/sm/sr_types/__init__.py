"""What file, LVM and LINSTOR SRs do differently."""
