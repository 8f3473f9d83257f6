//! One vCPU: its file, the page that it shares with the kernel, and the transfer of its state.
#![allow(unsafe_code)] // Unions that the kernel fills, and two system calls that the crate has not.

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO,
    KVM_EXIT_IO_OUT, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO, KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN,
    KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_INTERNAL_ERROR_EMULATION, Msrs, kvm_interrupt,
    kvm_msr_entry, kvm_run, kvm_vcpu_events, kvm_xcr, kvm_xcrs,
};
use kvm_ioctls::{SyncReg, VcpuFd};
use mimic_cpu::x86::state::Cpu;

use super::KvmError;
use super::kick::ImmediateExit;
use super::state;
use super::vm::{Vm, refused, too_long};

/// Number of the request KVM_INTERRUPT: `_IOW(0xae, 0x86, struct kvm_interrupt)`.
const KVM_INTERRUPT: libc::Ioctl = 0x4004_ae86u32 as libc::Ioctl;

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;

/// An MSR that is kept in the canonical state, and where.
type MsrRow = (u32, fn(&mut Cpu) -> &mut u64);

/// The MSRs that KVM holds while the guest runs; SDM vol. 4, table 2-2.
const MSRS: [MsrRow; 12] = [
    (0x48, |cpu| &mut cpu.msr.spec_ctrl),
    (0x174, |cpu| &mut cpu.msr.sysenter_cs),
    (0x175, |cpu| &mut cpu.msr.sysenter_esp),
    (0x176, |cpu| &mut cpu.msr.sysenter_eip),
    (0x1d9, |cpu| &mut cpu.msr.debugctl),
    (0x277, |cpu| &mut cpu.msr.pat),
    (0xc000_0081, |cpu| &mut cpu.msr.star),
    (0xc000_0082, |cpu| &mut cpu.msr.lstar),
    (0xc000_0083, |cpu| &mut cpu.msr.cstar),
    (0xc000_0084, |cpu| &mut cpu.msr.sfmask),
    (0xc000_0102, |cpu| &mut cpu.msr.kernel_gs_base),
    (0xc000_0103, |cpu| &mut cpu.msr.tsc_aux),
];

/// Why the guest was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// `immediate_exit`, or a signal.
    Called,
    /// IN or OUT of `count` items: their data lie in the shared page.
    Port { out: bool, port: u16, size: u8, count: u32 },
    /// An access where no memory is.
    Mmio { gpa: u64, len: u32, write: Option<[u8; 8]> },
    /// RDMSR, or WRMSR of a value.
    Msr { index: u32, write: Option<u64> },
    /// HLT.
    Halt,
    /// An interrupt can be delivered now, or the task priority fell.
    Look,
    /// A triple fault.
    Shutdown,
    /// KVM cannot perform the instruction at RIP, which is untouched.
    Emulation,
    /// KVM gave up.
    Refused(String),
}

/// A vCPU.
pub(super) struct Vcpu {
    fd: VcpuFd,
    run: NonNull<kvm_run>,
    /// Those of [`MSRS`] that KVM here knows, as it lists them, and the time-stamp counter at the end.
    known: Vec<MsrRow>,
    _vm: Arc<Vm>,
}

// SAFETY: the shared page belongs to `fd`, which may move between threads; `run` is only followed through `&self` and
// `&mut self`.
unsafe impl Send for Vcpu {}

impl Vcpu {
    pub(super) fn new(vm: Arc<Vm>, cpu: &Cpu) -> Result<Self, KvmError> {
        let mut fd = vm.vcpu(cpu.id, &cpu.model)?;
        for registers in [SyncReg::Register, SyncReg::SystemRegister] {
            fd.set_sync_valid_reg(registers);
        }
        let run = NonNull::from(fd.get_kvm_run());
        let mut vcpu = Vcpu { fd, run, known: Vec::new(), _vm: vm };
        for row in MSRS {
            if vcpu.get_msrs(&[row.0])?.is_some() {
                vcpu.known.push(row);
            } else {
                log::debug!(target: "kvm", "KVM has no MSR {:#x}", row.0);
            }
        }
        Ok(vcpu)
    }

    /// The byte that makes KVM_RUN return at once.
    pub(super) fn immediate_exit(&self) -> ImmediateExit {
        // SAFETY: a field of the shared page, which lives as long as the vCPU; a byte is an AtomicU8's layout.
        unsafe {
            NonNull::new_unchecked(
                (&raw mut (*self.run.as_ptr()).immediate_exit).cast::<AtomicU8>(),
            )
        }
    }

    pub(super) fn set_immediate_exit(&self, on: bool) {
        // SAFETY: as in `immediate_exit`.
        unsafe { self.immediate_exit().as_ref() }.store(on.into(), Ordering::SeqCst);
    }

    fn page(&mut self) -> &mut kvm_run {
        self.fd.get_kvm_run()
    }

    /// Lets the guest go on; IO that it left for is over then.
    pub(super) fn enter(&mut self, cr8: u8) -> Left {
        self.page().cr8 = cr8.into();
        match self.fd.run() {
            Ok(_) => {}
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Left::Called;
            }
            Err(error) => return Left::Refused(format!("KVM_RUN: {error}")),
        }
        let page = self.page();
        let reason = page.exit_reason;
        let exit = &page.__bindgen_anon_1;
        // SAFETY: the reason says which member the kernel has filled; all of them are plain numbers.
        unsafe {
            match reason {
                KVM_EXIT_INTR => Left::Called,
                KVM_EXIT_IO => Left::Port {
                    out: u32::from(exit.io.direction) == KVM_EXIT_IO_OUT,
                    port: exit.io.port,
                    size: exit.io.size,
                    count: exit.io.count,
                },
                KVM_EXIT_MMIO => Left::Mmio {
                    gpa: exit.mmio.phys_addr,
                    len: exit.mmio.len.min(8),
                    write: (exit.mmio.is_write != 0).then_some(exit.mmio.data),
                },
                KVM_EXIT_X86_RDMSR => Left::Msr { index: exit.msr.index, write: None },
                KVM_EXIT_X86_WRMSR => {
                    Left::Msr { index: exit.msr.index, write: Some(exit.msr.data) }
                }
                KVM_EXIT_HLT => Left::Halt,
                KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_SET_TPR => Left::Look,
                KVM_EXIT_SHUTDOWN => Left::Shutdown,
                KVM_EXIT_INTERNAL_ERROR
                    if exit.internal.suberror == KVM_INTERNAL_ERROR_EMULATION =>
                {
                    Left::Emulation
                }
                KVM_EXIT_INTERNAL_ERROR => {
                    Left::Refused(format!("internal error {}", exit.internal.suberror))
                }
                KVM_EXIT_FAIL_ENTRY => Left::Refused(format!(
                    "the processor refuses the guest's state (reason {:#x})",
                    exit.fail_entry.hardware_entry_failure_reason
                )),
                other => Left::Refused(format!("unexpected exit {other}")),
            }
        }
    }

    /// Where item `index` of the port access that the guest left for lies, if it is inside of the shared page's data.
    fn port_item(&mut self, index: u32) -> Option<(*mut u8, usize)> {
        let page = self.page();
        // SAFETY: called after an exit for a port alone; plain numbers.
        let io = unsafe { page.__bindgen_anon_1.io };
        let size = usize::from(io.size);
        if index >= io.count || size > 4 {
            return None;
        }
        let offset = io.data_offset as usize + size * index as usize;
        // SAFETY: the kernel promises that all items lie in the mapping, of which this is the start.
        Some((unsafe { self.run.as_ptr().cast::<u8>().add(offset) }, size))
    }

    /// An item that the guest writes to a port.
    pub(super) fn port_value(&mut self, index: u32) -> u32 {
        let mut bytes = [0; 4];
        if let Some((from, size)) = self.port_item(index) {
            // SAFETY: `port_item`: `size` bytes, at most 4, in the mapping; the guest does not run.
            unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), size) };
        }
        u32::from_le_bytes(bytes)
    }

    /// An item that the guest reads from a port.
    pub(super) fn set_port_value(&mut self, index: u32, value: u32) {
        if let Some((to, size)) = self.port_item(index) {
            // SAFETY: as in `port_value`.
            unsafe { std::ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), to, size) };
        }
    }

    /// What the guest reads where no memory is.
    pub(super) fn set_mmio(&mut self, bytes: [u8; 8]) {
        self.page().__bindgen_anon_1.mmio.data = bytes;
    }

    /// The answer to RDMSR or WRMSR: a value, or #GP.
    pub(super) fn set_msr_answer(&mut self, answer: Option<u64>) {
        let page = self.page();
        page.__bindgen_anon_1.msr.data = answer.unwrap_or(0);
        page.__bindgen_anon_1.msr.error = answer.is_none().into();
    }

    /// CR8 when the guest was left.
    pub(super) fn cr8(&mut self) -> u8 {
        self.page().cr8 as u8
    }

    /// Whether an interrupt could be delivered when the guest was left.
    pub(super) fn takes_interrupts(&mut self) -> bool {
        let page = self.page();
        page.ready_for_interrupt_injection != 0 && page.if_flag != 0
    }

    /// Asks for an exit once an interrupt can be delivered.
    pub(super) fn ask_for_window(&mut self, on: bool) {
        self.page().request_interrupt_window = on.into();
    }

    /// Queues an interrupt.
    pub(super) fn interrupt(&self, vector: u8) -> Result<(), KvmError> {
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the request reads the structure it is given.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_INTERRUPT, &raw const interrupt) };
        if result == 0 {
            return Ok(());
        }
        let source = std::io::Error::last_os_error();
        Err(KvmError::Host { what: "KVM_INTERRUPT", source })
    }

    /// Queues an NMI.
    pub(super) fn nmi(&self) -> Result<(), KvmError> {
        self.fd.nmi().map_err(refused("KVM_NMI"))
    }

    /// Where a linear address lies in guest memory.
    pub(super) fn physical(&self, linear: u64) -> Option<u64> {
        let translation = self.fd.translate_gva(linear).ok()?;
        (translation.valid != 0).then_some(translation.physical_address)
    }

    /// Events that wait to be delivered.
    pub(super) fn events(&self) -> Result<kvm_vcpu_events, KvmError> {
        self.fd.get_vcpu_events().map_err(refused("KVM_GET_VCPU_EVENTS"))
    }

    /// RIP and CS's base.
    pub(super) fn place(&self) -> (u64, u64) {
        let registers = self.fd.sync_regs();
        (registers.regs.rip, registers.sregs.cs.base)
    }

    /// RFLAGS, CR0 and SS's DPL.
    pub(super) fn mode(&self) -> (u64, u64, u8) {
        let registers = self.fd.sync_regs();
        (registers.regs.rflags, registers.sregs.cr0, registers.sregs.ss.dpl)
    }

    /// Follows a change of IA32_APIC_BASE, on which CPUID depends.
    pub(super) fn set_apic_base(&mut self, base: u64) {
        let registers = &mut self.fd.sync_regs_mut().sregs;
        registers.apic_base = base;
        // KVM takes an interrupt that is named here for a new one, and names in the shared page all that it has ever been
        // left with (Linux, arch/x86/kvm/x86.c, __get_sregs, which sets bits alone).
        registers.interrupt_bitmap = [0; 4];
        self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
    }

    fn get_msrs(&self, indices: &[u32]) -> Result<Option<Vec<u64>>, KvmError> {
        let mut msrs = entries(indices.iter().map(|index| (*index, 0)))?;
        let read = self.fd.get_msrs(&mut msrs).map_err(refused("KVM_GET_MSRS"))?;
        let values = msrs.as_slice().iter().map(|entry| entry.data);
        Ok((read == indices.len()).then(|| values.collect()))
    }

    fn set_msrs(&self, values: &[(u32, u64)]) -> Result<(), KvmError> {
        let msrs = entries(values.iter().copied())?;
        let written = self.fd.set_msrs(&msrs).map_err(refused("KVM_SET_MSRS"))?;
        match values.get(written) {
            None => Ok(()),
            // It stops at the first that it does not take.
            Some((index, value)) => {
                log::warn!(target: "kvm", "KVM does not take {value:#x} for MSR {index:#x}");
                self.set_msrs(&values[written + 1..])
            }
        }
    }

    /// The time-stamp counter.
    pub(super) fn tsc(&self) -> Result<u64, KvmError> {
        Ok(self.get_msrs(&[TSC])?.and_then(|values| values.first().copied()).unwrap_or(0))
    }

    /// Sets the time-stamp counter.
    pub(super) fn set_tsc(&self, value: u64) -> Result<(), KvmError> {
        self.set_msrs(&[(TSC, value)])
    }

    /// Takes over `cpu`, all but its time-stamp counter; `apic_base` and `cr8` are the local APIC's.
    pub(super) fn import(&mut self, cpu: &Cpu, apic_base: u64, cr8: u8) -> Result<(), KvmError> {
        // SAFETY: the area is as large as KVM_SET_XSAVE reads unless dynamic components were asked for, which nobody
        // does here.
        unsafe { self.fd.set_xsave(&state::xsave(cpu)) }.map_err(refused("KVM_SET_XSAVE"))?;
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..kvm_xcrs::default() };
        xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: cpu.xcr0 };
        self.fd.set_xcrs(&xcrs).map_err(refused("KVM_SET_XCRS"))?;
        self.fd
            .set_debug_regs(&state::debug_registers(cpu))
            .map_err(refused("KVM_SET_DEBUGREGS"))?;
        let mut cpu = cpu.clone();
        let values: Vec<(u32, u64)> =
            self.known.iter().map(|(index, of)| (*index, *of(&mut cpu))).collect();
        self.set_msrs(&values)?;
        // Not by the shared page: that is looked at when the guest is entered, over what is queued until then, and until
        // then KVM would tell of events that the former state had.
        self.fd.set_vcpu_events(&state::events(&cpu)).map_err(refused("KVM_SET_VCPU_EVENTS"))?;
        let shared = self.fd.sync_regs_mut();
        shared.regs = state::regs(&cpu);
        shared.sregs = state::sregs(&cpu, apic_base, cr8.into());
        for registers in [SyncReg::Register, SyncReg::SystemRegister] {
            self.fd.set_sync_dirty_reg(registers);
        }
        // What it said of interrupts was about another state.
        self.page().ready_for_interrupt_injection = 0;
        Ok(())
    }

    /// Puts the vCPU's state into `cpu`, all but the time-stamp counter.
    pub(super) fn export(&self, cpu: &mut Cpu) -> Result<(), KvmError> {
        let shared = self.fd.sync_regs();
        state::take_regs(cpu, &shared.regs);
        state::take_sregs(cpu, &shared.sregs);
        state::take_events(cpu, &self.events()?);
        state::take_xsave(cpu, &self.fd.get_xsave().map_err(refused("KVM_GET_XSAVE"))?);
        let xcrs = self.fd.get_xcrs().map_err(refused("KVM_GET_XCRS"))?;
        if let Some(xcr) = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize).find(|xcr| xcr.xcr == 0) {
            cpu.xcr0 = xcr.value;
        }
        let debug = self.fd.get_debug_regs().map_err(refused("KVM_GET_DEBUGREGS"))?;
        state::take_debug_registers(cpu, &debug);
        let indices: Vec<u32> = self.known.iter().map(|(index, _)| *index).collect();
        for ((_, of), value) in self.known.iter().zip(self.get_msrs(&indices)?.unwrap_or_default())
        {
            *of(cpu) = value;
        }
        Ok(())
    }
}

fn entries(values: impl Iterator<Item = (u32, u64)>) -> Result<Msrs, KvmError> {
    let entries: Vec<kvm_msr_entry> =
        values.map(|(index, data)| kvm_msr_entry { index, reserved: 0, data }).collect();
    Msrs::from_entries(&entries).map_err(|_| too_long("a list of MSRs"))
}
