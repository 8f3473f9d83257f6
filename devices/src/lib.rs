//! Guest memory, the bus, IRQ lines, the clock and every device.
