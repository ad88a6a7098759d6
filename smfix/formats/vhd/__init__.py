"""bytes -> :class:`smfix.formats.vhd.image.VhdImage`. Pure: it reads a :class:`smfix.values.ByteView`."""
