//! `/dev/kvm`, and the virtual machine that the vCPUs of a machine share.
#![allow(unsafe_code)] // The kernel is given guest memory.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_CAP_DEBUGREGS, KVM_CAP_EXIT_ON_EMULATION_FAILURE,
    KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_SYNC_REGS, KVM_CAP_TSC_CONTROL, KVM_CAP_VCPU_EVENTS,
    KVM_CAP_X86_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_XCRS, KVM_CAP_XSAVE,
    KVM_MEM_READONLY, KVM_MSR_EXIT_REASON_FILTER, KVM_MSR_EXIT_REASON_INVAL,
    KVM_MSR_EXIT_REASON_UNKNOWN, KVM_SYNC_X86_VALID_FIELDS, Msrs, kvm_cpuid_entry2, kvm_enable_cap,
    kvm_msr_entry, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};
use mimic_cpu::x86::model::{Model, feature};
use mimic_devices::memory::{GuestMemory, RegionKind};

use super::{Fit, KvmError, cpuid};

/// Where KVM may put three pages and one for its own use on processors that need them, below the BIOS's ROM (api.rst,
/// KVM_SET_TSS_ADDR and KVM_SET_IDENTITY_MAP_ADDR). No board has anything there.
const TSS: usize = 0xfeff_d000;
const IDENTITY_MAP: u64 = 0xfeff_c000;

/// MSRs of which KVM shall not know, by their first and their number: whoever accesses them leaves the guest, and the
/// canonical state or the local APIC answers. IA32_PLATFORM_ID, IA32_APIC_BASE, IA32_FEATURE_CONTROL, IA32_TSC_ADJUST,
/// IA32_BIOS_SIGN_ID, IA32_MTRRCAP, IA32_MISC_ENABLE, MTRRs, IA32_MTRR_DEF_TYPE, IA32_TSC_DEADLINE.
const FILTERED: [(u32, u32); 12] = [
    (0x17, 1),
    (0x1b, 1),
    (0x3a, 2),
    (0x8b, 1),
    (0xfe, 1),
    (0x1a0, 1),
    (0x200, 16),
    (0x250, 1),
    (0x258, 2),
    (0x268, 8),
    (0x2ff, 1),
    (0x6e0, 1),
];
/// IA32_TIME_STAMP_COUNTER: what the guest writes to it moves the canonical state's.
const TSC: u32 = 0x10;

pub(super) fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Host { what, source: error.into() }
}

/// The host's KVM.
pub(super) struct Host {
    kvm: Kvm,
}

impl Host {
    /// Opens it and looks whether it can do what is needed here.
    pub(super) fn open() -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(|error| KvmError::Open(error.into()))?;
        if kvm.get_api_version() != KVM_API_VERSION as i32 {
            return Err(KvmError::TooOld("its version of the interface is another one"));
        }
        let needed = [
            (KVM_CAP_SYNC_REGS, "registers in shared memory"),
            (KVM_CAP_IMMEDIATE_EXIT, "immediate exits"),
            (KVM_CAP_X86_USER_SPACE_MSR, "exits for MSRs"),
            (KVM_CAP_X86_MSR_FILTER, "the filter of MSRs"),
            (KVM_CAP_XSAVE, "XSAVE"),
            (KVM_CAP_XCRS, "XCR0"),
            (KVM_CAP_DEBUGREGS, "debug registers"),
            (KVM_CAP_VCPU_EVENTS, "pending events"),
        ];
        for (capability, what) in needed {
            if kvm.check_extension_raw(capability.into()) <= 0 {
                return Err(KvmError::TooOld(what));
            }
        }
        let synced = kvm.check_extension_raw(KVM_CAP_SYNC_REGS.into()) as u32;
        if synced & KVM_SYNC_X86_VALID_FIELDS != KVM_SYNC_X86_VALID_FIELDS {
            return Err(KvmError::TooOld("registers in shared memory"));
        }
        Ok(Host { kvm })
    }

    /// Its answer about a capability.
    pub(super) fn capability(&self, capability: u32) -> i32 {
        self.kvm.check_extension_raw(capability.into())
    }

    /// What CPUID may say: what KVM supports, and what guests find whether they shall or not.
    fn offered(&self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        let supported = self
            .kvm
            .get_supported_cpuid(cpuid::MAX_LEAVES)
            .map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
        let vm = self.kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        vcpu.set_cpuid2(&supported).map_err(refused("KVM_SET_CPUID2"))?;
        let shown = vcpu.get_cpuid2(cpuid::MAX_LEAVES).map_err(refused("KVM_GET_CPUID2"))?;
        Ok([supported.as_slice(), shown.as_slice()].concat())
    }

    /// Makes a virtual machine with this memory.
    pub(super) fn create(self, memory: Arc<GuestMemory>) -> Result<Vm, KvmError> {
        let fd = self.kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        fd.set_tss_address(TSS).map_err(refused("KVM_SET_TSS_ADDR"))?;
        fd.set_identity_map_address(IDENTITY_MAP).map_err(refused("KVM_SET_IDENTITY_MAP_ADDR"))?;
        let enable = |cap, value| {
            let mut capability = kvm_enable_cap { cap, ..kvm_enable_cap::default() };
            capability.args[0] = value;
            fd.enable_cap(&capability)
        };
        let reasons = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN;
        enable(KVM_CAP_X86_USER_SPACE_MSR, u64::from(reasons | KVM_MSR_EXIT_REASON_FILTER))
            .map_err(refused("KVM_CAP_X86_USER_SPACE_MSR"))?;
        if self.capability(KVM_CAP_EXIT_ON_EMULATION_FAILURE) > 0 {
            enable(KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)
                .map_err(refused("KVM_CAP_EXIT_ON_EMULATION_FAILURE"))?;
        }
        let none = [0; 2];
        let both = MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE;
        let ranges: Vec<MsrFilterRange> = FILTERED
            .into_iter()
            .map(|(base, msr_count)| (both, base, msr_count))
            .chain([(MsrFilterRangeFlags::WRITE, TSC, 1)])
            .map(|(flags, base, msr_count)| MsrFilterRange {
                flags,
                base,
                msr_count,
                bitmap: &none,
            })
            .collect();
        fd.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
            .map_err(refused("KVM_X86_SET_MSR_FILTER"))?;
        let memory = Backing::give(&fd, memory)?;
        Ok(Vm {
            fd,
            offered: self.offered()?,
            host: self,
            _memory: memory,
            told: Mutex::new(false),
        })
    }
}

/// The memory of a virtual machine, which must outlive it.
pub(super) struct Backing(#[expect(dead_code, reason = "kept alive")] Arc<GuestMemory>);

impl Backing {
    /// Gives `memory` to the virtual machine. The result is to be kept as long as that.
    pub(super) fn give(vm: &VmFd, memory: Arc<GuestMemory>) -> Result<Self, KvmError> {
        for (slot, region) in memory.regions().iter().enumerate() {
            let read_only = region.kind() == RegionKind::Rom;
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: if read_only { KVM_MEM_READONLY } else { 0 },
                guest_phys_addr: region.base(),
                memory_size: region.size(),
                userspace_addr: region.host().as_ptr() as u64,
            };
            // SAFETY: the mapping lives as long as the result, which owners keep beside the virtual machine; everybody
            // here accesses it by atomics alone, and knows that others write it.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(Backing(memory))
    }
}

/// A virtual machine.
pub(super) struct Vm {
    fd: VmFd,
    host: Host,
    /// What CPUID may say.
    offered: Vec<kvm_cpuid_entry2>,
    _memory: Backing,
    /// What CPUID says in spite of the model has been told.
    told: Mutex<bool>,
}

impl Vm {
    /// A vCPU of `model`, whose CPUID says so.
    pub(super) fn vcpu(&self, id: u32, model: &Model) -> Result<VcpuFd, KvmError> {
        let missing = cpuid::missing(model, &self.offered);
        if !missing.is_empty() {
            return Err(KvmError::Model(format!("without {}", cpuid::names(&missing))));
        }
        let bits = cpuid::physical_bits(&self.offered);
        if model.phys_bits() > bits {
            return Err(KvmError::Model(format!("with {bits} bits of physical addresses at most")));
        }
        let fd = self.fd.create_vcpu(id.into()).map_err(refused("KVM_CREATE_VCPU"))?;
        self.set_frequency(&fd, model)?;
        let table = CpuId::from_entries(&cpuid::table(model, id))
            .map_err(|_| too_long("the table for CPUID"))?;
        fd.set_cpuid2(&table).map_err(refused("KVM_SET_CPUID2"))?;
        let read_back = fd.get_cpuid2(cpuid::MAX_LEAVES).map_err(refused("KVM_GET_CPUID2"))?;
        let (added, hidden) = cpuid::overridden(model, read_back.as_slice());
        let told = &mut *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(told, true) {
            for (features, what) in [(added, "adds"), (hidden, "hides")] {
                if !features.is_empty() {
                    let names = cpuid::names(&features);
                    log::warn!(target: "kvm", "KVM {what} features that the guest's CPUID shall (not) have: {names}");
                }
            }
        }
        Ok(fd)
    }

    /// Has the time-stamp counter run at the model's frequency.
    fn set_frequency(&self, vcpu: &VcpuFd, model: &Model) -> Result<(), KvmError> {
        let host = frequency(vcpu)?;
        if host.abs_diff(model.tsc_hz) <= 1000 {
            return Ok(());
        }
        let khz = u32::try_from(model.tsc_hz / 1000).unwrap_or(u32::MAX);
        if self.host.capability(KVM_CAP_TSC_CONTROL) > 0 && vcpu.set_tsc_khz(khz).is_ok() {
            return Ok(());
        }
        Err(KvmError::Model(format!(
            "with a time-stamp counter of {} MHz alone (this machine's has {})",
            host / 1_000_000,
            model.tsc_hz / 1_000_000
        )))
    }
}

fn frequency(vcpu: &VcpuFd) -> Result<u64, KvmError> {
    Ok(u64::from(vcpu.get_tsc_khz().map_err(refused("KVM_GET_TSC_KHZ"))?) * 1000)
}

/// Takes from `model` what KVM here cannot perform, and gives its time-stamp counter a frequency that KVM can have.
///
/// # Errors
/// There is no KVM, or it refuses.
pub(super) fn fit(model: &mut Model) -> Result<Fit, KvmError> {
    let host = Host::open()?;
    let offered = host.offered()?;
    let mut missing = cpuid::missing(model, &offered);
    let vm = host.kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
    let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
    let tsc = fixed_tsc(&vcpu)?;
    if tsc.is_some() && model.has(feature::TSC_ADJUST) {
        missing.push(feature::TSC_ADJUST);
    }
    for feature in &missing {
        model.switch(*feature, false);
    }
    let bits = cpuid::physical_bits(&offered);
    if model.phys_bits() > bits {
        // Unless no model has so few: then no vCPU can be made.
        model.set_phys_bits(bits);
    }
    if host.capability(KVM_CAP_TSC_CONTROL) <= 0 {
        model.tsc_hz = frequency(&vcpu)?;
    }
    Ok(Fit { lost: cpuid::names(&missing), tsc: tsc.unwrap_or(0) })
}

/// The time-stamp counter of a vCPU if it cannot be set.
fn fixed_tsc(vcpu: &VcpuFd) -> Result<Option<u64>, KvmError> {
    const FAR: u64 = 1 << 60;
    let entry = |data| kvm_msr_entry { index: TSC, data, ..kvm_msr_entry::default() };
    let list = |data| Msrs::from_entries(&[entry(data)]).map_err(|_| too_long("a list of MSRs"));
    vcpu.set_msrs(&list(FAR)?).map_err(refused("KVM_SET_MSRS"))?;
    let mut read = list(0)?;
    vcpu.get_msrs(&mut read).map_err(refused("KVM_GET_MSRS"))?;
    let value = read.as_slice().first().map_or(0, |entry| entry.data);
    Ok((value < FAR).then_some(value))
}

pub(super) fn too_long(what: &'static str) -> KvmError {
    KvmError::Host { what, source: io::ErrorKind::InvalidInput.into() }
}

/// The virtual machine of a machine, made when its first hart needs it.
pub struct KvmGuest {
    memory: Arc<GuestMemory>,
    vm: Mutex<Option<Arc<Vm>>>,
}

impl KvmGuest {
    /// Of a machine with this memory.
    #[must_use]
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        KvmGuest { memory, vm: Mutex::default() }
    }

    pub(super) fn vm(&self) -> Result<Arc<Vm>, KvmError> {
        let mut vm = self.vm.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vm) = &*vm {
            return Ok(Arc::clone(vm));
        }
        let made = Arc::new(Host::open()?.create(Arc::clone(&self.memory))?);
        *vm = Some(Arc::clone(&made));
        Ok(made)
    }
}
