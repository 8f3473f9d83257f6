//! ACPI tables of a board without PCI and fixed power management: hardware-reduced ACPI (ACPI specification 6.5,
//! section 4.1), virtio devices at fixed addresses.

use acpi_tables::Aml;
use acpi_tables::aml::{Device, Interrupt, Memory32Fixed, Name, Path, ResourceTemplate, Scope};
use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::sdt::Sdt;

use super::SerialPort;
use super::acpi::{self, Encode, Encoded, OEM, OEM_REVISION, OEM_TABLE, Tables, encode, table};

/// The name that Linux knows virtio-mmio by (its `Documentation/devicetree` has no part in it: `drivers/virtio`).
const VIRTIO_MMIO: &str = "LNRO0005";

/// A virtio-mmio slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// First address.
    pub base: u32,
    /// Bytes.
    pub size: u32,
    /// Global system interrupt.
    pub interrupt: u32,
}

/// What the tables tell of a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicrovmConfig {
    /// Processors; their local APICs have the numbers from 0 on.
    pub cpus: u8,
    /// Address of the local APICs.
    pub lapic: u32,
    /// Address of the I/O APIC.
    pub ioapic: u32,
    /// The serial port.
    pub serial: SerialPort,
    /// Address of the sleep control register.
    pub sleep_control: u64,
    /// Address of the sleep status register.
    pub sleep_status: u64,
    /// Sleep type of S5.
    pub s5: u8,
    /// Address of the reset register, and the value that resets.
    pub reset: (u64, u8),
    /// virtio-mmio slots.
    pub virtio: Vec<Slot>,
}

/// Makes the tables for `base`, a multiple of 64 below 4 GiB.
#[must_use]
pub fn tables(config: &MicrovmConfig, base: u32) -> Tables {
    acpi::lay_out(base, dsdt(config).as_slice(), |_, dsdt| {
        let madt = acpi::madt(config.cpus, config.lapic, config.ioapic, &[]);
        vec![encode(&fadt(config, dsdt)), madt.as_slice().to_vec()]
    })
}

/// Section 5.2.9: no fixed hardware, but registers to sleep and to reset.
fn fadt(config: &MicrovmConfig, dsdt: u32) -> FADT {
    let register =
        |address| GAS::new(GasSpace::SystemMemory, 8, 0, AccessSize::ByteAccess, address);
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_32(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup);
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.reset_reg = register(config.reset.0);
    fadt.reset_value = config.reset.1;
    fadt.sleep_control_reg = register(config.sleep_control);
    fadt.sleep_status_reg = register(config.sleep_status);
    fadt.finalize()
}

fn dsdt(config: &MicrovmConfig) -> Sdt {
    let mut aml = acpi::sleep("_S5_", config.s5);
    let (serial, clock) = (acpi::serial(1, config.serial), acpi::clock());
    let virtio: Vec<Encoded> =
        (0u8..).zip(&config.virtio).map(|(n, slot)| device(n, slot)).collect();
    let mut children: Vec<&dyn Aml> = vec![&serial, &clock];
    children.extend(virtio.iter().map(|device| device as &dyn Aml));
    Scope::new("_SB_".into(), children).to_aml_bytes(&mut aml);
    aml.extend(acpi::processors(config.cpus));
    table(b"DSDT", 2, &aml)
}

/// The device of a slot: cache-coherent, interrupts level-triggered and active high.
fn device(number: u8, slot: &Slot) -> Encoded {
    let resources = ResourceTemplate::new(vec![
        &Memory32Fixed::new(true, slot.base, slot.size),
        &Interrupt::new(true, false, false, false, slot.interrupt),
    ])
    .encoded();
    Device::new(
        Path::new(&format!("VR{number:02}")),
        vec![
            &Name::new("_HID".into(), &VIRTIO_MMIO),
            &Name::new("_UID".into(), &number),
            &Name::new("_CCA".into(), &1u8),
            &Name::new("_CRS".into(), &resources),
        ],
    )
    .encoded()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_and_the_slots_are_told() {
        let config = MicrovmConfig {
            cpus: 1,
            lapic: 0xfee0_0000,
            ioapic: 0xfec0_0000,
            serial: SerialPort { port: 0x3f8, irq: 4 },
            sleep_control: 0xfea0_0200,
            sleep_status: 0xfea0_0201,
            s5: 5,
            reset: (0xfea0_0202, 0x42),
            virtio: vec![Slot { base: 0xfeb0_0000, size: 0x200, interrupt: 16 }],
        };
        // Table 5.9: flags at 112 (20: hardware-reduced, 10: reset register), the registers at 116, 244 and 256.
        let fadt = encode(&fadt(&config, 0x1000));
        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
        let register = |byte| [0, 8, 0, 1, byte, 0x02, 0xa0, 0xfe, 0, 0, 0, 0];
        assert_eq!((&fadt[116..128], fadt[128]), (&register(2)[..], 0x42));
        assert_eq!((&fadt[244..256], &fadt[256..268]), (&register(0)[..], &register(1)[..]));
        // Section 6.4: 32-bit fixed memory; extended interrupt: consumer, level, active high, exclusive.
        let dsdt = dsdt(&config);
        let has = |bytes: &[u8]| dsdt.as_slice().windows(bytes.len()).any(|window| window == bytes);
        assert!(has(&[0x86, 9, 0, 1, 0, 0, 0xb0, 0xfe, 0, 2, 0, 0, 0x89, 6, 0, 1, 1, 16, 0, 0, 0]));
        for name in [&b"VR00"[..], b"LNRO0005\0", b"COM1", b"RTC_", b"C000"] {
            assert!(has(name));
        }
    }
}
