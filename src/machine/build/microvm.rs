//! The devices of the board `microvm`.

use std::sync::{Arc, Mutex};

use mimic_cpu::x86::model::Model;
use mimic_devices::acpi_sleep::{self, AcpiSleep};
use mimic_devices::bus::AddressSpace;
use mimic_devices::debug_ports::Port92;
use mimic_devices::irq::IrqLine;
use mimic_devices::pit::{self, Pit};
use mimic_devices::ports::PortSpace;
use mimic_devices::power::PowerSink;
use mimic_devices::rtc::{self, Rtc};
use mimic_devices::virtio::VirtioDevice;
use mimic_devices::virtio::mmio::{Interface, VirtioMmio};

use super::x86::{self, Interrupts, PortRow, Wired};
use super::{Ground, Made, placement};
use crate::board::{microvm, pc};
use crate::machine::MachineError;
use crate::machine::control::Control;
use crate::machine::spec::{ConsoleKind, MachineSpec};

/// Makes the board's devices and places them.
pub(super) fn wire(
    ground: &Ground,
    space: &AddressSpace,
    model: &Model,
    spec: &MachineSpec,
    made: &mut Made,
) -> Result<Wired, MachineError> {
    let Ground { clock, timers, control, output, .. } = ground;
    let interrupts = Interrupts::new(ground, model);
    let [serial, _] = pc::UARTS;
    let (uart, input) = x86::uart(ground, &interrupts, serial, Box::new(output.clone()));
    made.consoles.push((ConsoleKind::Uart, input));
    let pit = Pit::new(clock.clone(), timers, interrupts.irq(0));
    let rtc = Rtc::new(clock.clone(), timers, interrupts.irq(8), ground.wall_base);
    let power: Arc<dyn PowerSink> = Arc::<Control>::clone(control);

    for number in 0..microvm::VIRTIO_SLOTS {
        let device: Option<Box<dyn VirtioDevice>> = match number {
            microvm::ENTROPY_SLOT => Some(ground.entropy_device()),
            microvm::CONSOLE_SLOT => Some(ground.console(made)),
            disk => spec.disks.get(disk as usize).map(|disk| ground.block(disk, made)),
        };
        let (base, input) = microvm::slot(number);
        let slot = match device {
            Some(device) => {
                let (memory, line) = (Arc::clone(&ground.memory), interrupts.pin(input));
                VirtioMmio::new(Interface::Modern, device, memory, line)
            }
            None => VirtioMmio::empty(Interface::Modern),
        };
        space.map(base, microvm::VIRTIO_SIZE, slot).map_err(placement)?;
    }
    // For the BIOS, and guests that know no ACPI. A20 is always open.
    let port_92 = Arc::new(Mutex::new(Port92::new(IrqLine::unconnected(), Arc::clone(&power))));
    let sleep = Arc::new(Mutex::new(AcpiSleep::new(power)));
    space.map(microvm::SLEEP, acpi_sleep::SIZE, sleep).map_err(placement)?;
    let rows: [PortRow; 5] = [
        ("pit", 0x40, 4, pit.clone(), pit::COUNTERS),
        ("pit", 0x61, 1, pit, pit::PORT_61),
        ("rtc", 0x70, 2, rtc, rtc::INDEX),
        ("port-92", 0x92, 1, port_92, 0),
        ("uart16550", serial.port, 8, uart, 0),
    ];
    let ports = Arc::new(PortSpace::new());
    let wired = x86::place(ground, &interrupts, rows, (space, Arc::clone(&ports)), spec)?;
    // Kernels that find hardware-reduced ACPI do not look for a PIC.
    interrupts.set_up(&ports, [0xff, 0xff]);
    Ok(wired)
}
