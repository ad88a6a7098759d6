"""bytes -> :class:`smfix.vhd.image.VhdImage`. Pure: it reads a :class:`smfix.model.ByteView`."""
