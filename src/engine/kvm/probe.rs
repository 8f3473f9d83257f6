//! What kind of KVM this is: some hosts' KVM is not the processor's virtualisation but a program of the kernel, which
//! executes user code as it is and emulates everything else. Virtual machines of a few instructions find out; no name
//! of a module or processor is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use mimic_cpu::x86::model::{Model, feature};
use mimic_cpu::x86::state::{Cpu, Segment, cr0, cr4, efer, rights, sreg};
use mimic_devices::memory::{GuestMemory, RegionSpec};

use super::vm::{Host, refused};
use super::{KvmError, state};

/// Who executes the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmKind {
    /// The processor, in all modes.
    Hardware,
    /// A program, but for user code.
    Software,
}

/// Whether there is a KVM that can be used.
///
/// # Errors
/// Why there is none.
pub fn open() -> Result<(), KvmError> {
    Host::open().map(drop)
}

/// Turns of the loop that is timed: some tens of microseconds on a processor, tens of milliseconds by emulation.
const TURNS: u16 = 20_000;
/// What tells the two apart.
const LIMIT: Duration = Duration::from_millis(5);

/// What kind it is.
///
/// # Errors
/// There is none.
pub fn kind() -> Result<KvmKind, KvmError> {
    Ok(if loop_time()? < LIMIT { KvmKind::Hardware } else { KvmKind::Software })
}

/// What virtual machines of a few instructions find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findings {
    /// By [`loop_time`](Self::loop_time).
    pub kind: KvmKind,
    /// What 20,000 turns of a loop in real mode take.
    pub loop_time: Duration,
    /// SYSCALL in user code leads to the supervisor.
    pub syscall: bool,
    /// CMPXCHG16B can be performed by the supervisor; otherwise such instructions are left to the interpreter.
    pub cmpxchg16b: bool,
    /// 32-bit paging works.
    pub legacy_paging: bool,
    /// A feature that was hidden stays hidden from user code's CPUID.
    pub cpuid: bool,
    /// User code's RDTSC shows the guest's counter.
    pub tsc: bool,
}

/// Probes all that [`Findings`] has.
///
/// # Errors
/// There is no KVM.
pub fn probe() -> Result<Findings, KvmError> {
    let loop_time = loop_time()?;
    Ok(Findings {
        kind: if loop_time < LIMIT { KvmKind::Hardware } else { KvmKind::Software },
        loop_time,
        syscall: syscall()?,
        cmpxchg16b: cmpxchg16b()?,
        legacy_paging: legacy_paging()?,
        cpuid: cpuid()?,
        tsc: tsc()?,
    })
}

const CODE: u64 = 0x1000;
const TABLES: u64 = 0x4000;
const DATA: u64 = 0x8000;

/// How code ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Halted,
    Port,
    Other,
}

/// A virtual machine with 64 KiB of memory and one vCPU.
struct Mini {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: super::vm::Backing,
}

impl Mini {
    /// With `code` at its place.
    fn new(code: &[u8]) -> Result<(Self, Kvm), KvmError> {
        let kvm = Kvm::new().map_err(|error| KvmError::Open(error.into()))?;
        let host = |what| {
            move |error: Box<dyn std::error::Error + Send + Sync>| KvmError::Host {
                what,
                source: std::io::Error::other(error),
            }
        };
        let memory = GuestMemory::new(&[RegionSpec::ram(0, 0x1_0000)])
            .map_err(|error| host("memory")(error.into()))?;
        let memory = Arc::new(memory);
        let fill = |gpa, bytes: &[u8]| {
            memory.fill(gpa, bytes).map_err(|error| host("memory")(error.into()))
        };
        fill(CODE, code)?;
        // The lowest 2 MiB for everybody: 64-bit tables, and behind them a 32-bit one of 4 MiB.
        for (gpa, entry) in [
            (TABLES, TABLES + 0x1000 + 7),
            (TABLES + 0x1000, TABLES + 0x2000 + 7),
            (TABLES + 0x2000, 0x87),
            (TABLES + 0x3000, 0x87),
        ] {
            fill(gpa, &entry.to_le_bytes())?;
        }
        let vm = kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        let backing = super::vm::Backing::give(&vm, memory)?;
        let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        Ok((Mini { vcpu, _vm: vm, _memory: backing }, kvm))
    }

    /// With the host's CPUID.
    fn with_cpuid(code: &[u8]) -> Result<Self, KvmError> {
        let (mini, kvm) = Mini::new(code)?;
        let supported = kvm
            .get_supported_cpuid(super::cpuid::MAX_LEAVES)
            .map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
        mini.vcpu.set_cpuid2(&supported).map_err(refused("KVM_SET_CPUID2"))?;
        Ok(mini)
    }

    /// Runs from `cpu` to an end. A state that KVM refuses is an end, too.
    fn run(&mut self, cpu: &Cpu, msrs: &[(u32, u64)]) -> Outcome {
        let entries: Vec<_> = msrs
            .iter()
            .map(|(index, data)| kvm_bindings::kvm_msr_entry {
                index: *index,
                data: *data,
                ..Default::default()
            })
            .collect();
        let set = || -> Option<()> {
            self.vcpu.set_sregs(&state::sregs(cpu, 0xfee0_0900, 0)).ok()?;
            self.vcpu.set_regs(&state::regs(cpu)).ok()?;
            self.vcpu.set_msrs(&kvm_bindings::Msrs::from_entries(&entries).ok()?).ok().map(drop)
        };
        if set().is_none() {
            return Outcome::Other;
        }
        match self.vcpu.run() {
            Ok(VcpuExit::Hlt) => Outcome::Halted,
            Ok(VcpuExit::IoOut(..)) => Outcome::Port,
            _ => Outcome::Other,
        }
    }

    fn regs(&self) -> Result<kvm_regs, KvmError> {
        self.vcpu.get_regs().map_err(refused("KVM_GET_REGS"))
    }

    fn sregs(&self) -> Result<kvm_sregs, KvmError> {
        self.vcpu.get_sregs().map_err(refused("KVM_GET_SREGS"))
    }
}

/// A processor at the code, in real mode.
fn real() -> Cpu {
    let mut cpu = Cpu::new(0, Model::v3());
    cpu.cr0 = cr0::ET;
    cpu.seg[usize::from(sreg::CS)] = Segment::real(0, true);
    (cpu.rip, cpu.rflags) = (CODE, 2);
    cpu.gpr[4] = 0x7000;
    cpu
}

fn flat(selector: u16, kind: u32, cpl: u8) -> Segment {
    let common = rights::ACCESSED | rights::WRITABLE | rights::S | rights::P | rights::G;
    let rights = kind | common | u32::from(cpl) << rights::DPL_SHIFT;
    Segment { selector: selector | u16::from(cpl), base: 0, limit: u32::MAX, rights }
}

/// In 64-bit mode. User code may access ports.
fn long(cpl: u8) -> Cpu {
    let mut cpu = real();
    cpu.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::PG;
    (cpu.cr3, cpu.cr4) = (TABLES, cr4::PAE);
    cpu.efer = efer::LME | efer::LMA | efer::SCE;
    cpu.seg = [flat(0x18, rights::DB, cpl); 6];
    cpu.seg[usize::from(sreg::CS)] = flat(0x20, rights::CODE | rights::L, cpl);
    (cpu.cpl, cpu.rflags) = (cpl, 0x3002);
    cpu
}

fn loop_time() -> Result<Duration, KvmError> {
    // MOV CX, imm16; DEC CX; JNZ; HLT.
    let [low, high] = TURNS.to_le_bytes();
    let code = [0xb9, low, high, 0x49, 0x75, 0xfd, 0xf4];
    let mut least = Duration::MAX;
    let mut mini = Mini::with_cpuid(&code)?;
    // A host that is busy may be late once.
    for _ in 0..3 {
        let started = Instant::now();
        if mini.run(&real(), &[]) == Outcome::Halted {
            least = least.min(started.elapsed());
        }
        if least < LIMIT {
            break;
        }
    }
    Ok(least)
}

fn syscall() -> Result<bool, KvmError> {
    // SYSCALL; OUT (where it leads: HLT).
    let mut mini = Mini::with_cpuid(&[0x0f, 0x05, 0xe6, 0x80, 0x90, 0x90, 0x90, 0x90, 0xf4])?;
    let msrs = [(0xc000_0081, 0x0013_0008_0000_0000), (0xc000_0082, CODE + 8), (0xc000_0084, 0)];
    let outcome = mini.run(&long(3), &msrs);
    Ok(outcome == Outcome::Halted && mini.sregs()?.cs.selector & 3 == 0)
}

fn cmpxchg16b() -> Result<bool, KvmError> {
    // LOCK CMPXCHG16B [RSI]; HLT.
    let mut mini = Mini::with_cpuid(&[0xf0, 0x48, 0x0f, 0xc7, 0x0e, 0xf4])?;
    let mut cpu = long(0);
    cpu.gpr[6] = DATA;
    Ok(mini.run(&cpu, &[]) == Outcome::Halted)
}

fn legacy_paging() -> Result<bool, KvmError> {
    // MOV EAX, [DATA]; HLT.
    let mut mini = Mini::with_cpuid(&[0xa1, 0x00, 0x80, 0x00, 0x00, 0xf4])?;
    let mut cpu = long(0);
    (cpu.cr3, cpu.cr4, cpu.efer) = (TABLES + 0x3000, cr4::PSE, 0);
    cpu.seg[usize::from(sreg::CS)] = flat(0x20, rights::CODE | rights::DB, 0);
    Ok(mini.run(&cpu, &[]) == Outcome::Halted)
}

fn cpuid() -> Result<bool, KvmError> {
    // CPUID; OUT 0x80, EAX.
    let (mut mini, _) = Mini::new(&[0x0f, 0xa2, 0xe7, 0x80])?;
    let mut model = Model::v3();
    // Every processor since 2008 has it.
    model.set(feature::SSE4_1, false);
    let table = kvm_bindings::CpuId::from_entries(&super::cpuid::table(&model, 0));
    let Ok(table) = table else { return Ok(false) };
    mini.vcpu.set_cpuid2(&table).map_err(refused("KVM_SET_CPUID2"))?;
    let mut cpu = long(3);
    cpu.gpr[0] = 1;
    let outcome = mini.run(&cpu, &[]);
    let (_, _, _, bit) = feature::SSE4_1.place();
    Ok(outcome == Outcome::Port && mini.regs()?.rcx >> bit & 1 == 0)
}

fn tsc() -> Result<bool, KvmError> {
    const FAR: u64 = 1 << 60;
    // RDTSC; OUT 0x80, EAX.
    let mut mini = Mini::with_cpuid(&[0x0f, 0x31, 0xe7, 0x80])?;
    let outcome = mini.run(&long(3), &[(0x10, FAR)]);
    let regs = mini.regs()?;
    Ok(outcome == Outcome::Port && (regs.rdx << 32 | regs.rax & 0xffff_ffff) >= FAR)
}
