//! Vector operations against the host's own: every form that [`mimic_cpu::x86::simd::lookup`] claims is assembled, run
//! natively, performed by the table's operation and run on the interpreter, on the same operands; registers, memory, arithmetic flags and MXCSR must be equal to the
//! last bit.
//!
//! `MIMIC_X86_CASES` sets the number of operand sets for each form. Forms the host lacks are skipped by name.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

#[path = "../x86_common/mod.rs"]
mod common;
mod forms;
mod guest;
mod host;
mod model;
mod operands;
#[path = "../common/random.rs"]
mod random;

use std::collections::BTreeSet;

use forms::Form;
use guest::Guest;
use host::{Native, State};
use iced_x86::CpuidFeature;
use mimic_cpu::x86::simd::{Run, V256};
use operands::{Exceptions, Operands};

/// Operand sets for each form.
fn cases() -> usize {
    let default = if cfg!(debug_assertions) { 100 } else { 600 };
    std::env::var("MIMIC_X86_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Runs the forms that `wanted` chooses natively and here.
fn agree(wanted: impl Fn(&Form) -> bool, exceptions: Exceptions) {
    let mut skipped = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut forms = 0;
    for form in forms::all().filter(|form| wanted(form)) {
        if let Some(feature) = form.missing_feature() {
            skipped.insert(format!("{:?} (no {feature})", form.code));
            continue;
        }
        forms += 1;
        wrong.extend(disagreement(&form, exceptions));
    }
    if !skipped.is_empty() {
        println!("skipped, the host lacks them: {skipped:?}");
    }
    println!("{forms} forms compared, {} operand sets each", cases());
    assert!(forms != 0, "no forms");
    assert!(wrong.is_empty(), "{} forms differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The first operands on which a form's native and modelled results differ, and how many there are.
fn disagreement(form: &Form, exceptions: Exceptions) -> Option<String> {
    let native = Native::new(form);
    let mut guest = Guest::new(form);
    let mut operands = Operands::new(form, exceptions);
    // Each immediate at least twice.
    let cases = if form.op.immediate { cases().max(512) } else { cases() };
    let mut first = None;
    let mut count = 0;
    let mut ours = State::default();
    let mut theirs = State::default();
    for case in 0..cases {
        let imm = case as u8;
        operands.next(&mut ours);
        theirs.clone_from(&ours);
        let start = first.is_none().then(|| ours.clone());
        native.run(imm, &mut theirs);
        let mut run = ours.clone();
        model::perform(form.op, imm, &mut ours);
        if ours.same(&theirs) && theirs.signal == 0 {
            guest.run(imm, &mut run);
            ours = run;
        }
        if !ours.same(&theirs) {
            count += 1;
            first = first.or_else(|| {
                Some(format!(
                    "{:?} {} imm {imm:#x}\n  start {:x?}\n  ours  {}\n  host  {}",
                    form.code,
                    if form.memory { "memory" } else { "register" },
                    start,
                    ours.differences(&theirs),
                    theirs.differences(&ours)
                ))
            });
        }
    }
    first.map(|first| format!("{first}\n  in {count} of {cases} cases"))
}

fn is_float(form: &Form) -> bool {
    matches!(form.op.run, Run::Fp(_) | Run::Fp3(_) | Run::Flags(_))
}

#[test]
fn legacy_integers() {
    agree(|form| !form.vex() && !is_float(form), Exceptions::Masked);
}

#[test]
fn vex_integers() {
    agree(|form| form.vex() && !is_float(form), Exceptions::Masked);
}

#[test]
fn legacy_floats() {
    agree(|form| !form.vex() && is_float(form), Exceptions::Masked);
}

#[test]
fn vex_floats() {
    agree(|form| form.vex() && is_float(form), Exceptions::Masked);
}

#[test]
fn unmasked_exceptions() {
    agree(is_float, Exceptions::Any);
}

/// Forms with a memory operand that the host has, and a state in which masked moves and gathers touch all of it.
fn memory_forms() -> impl Iterator<Item = (Form, Native, State)> {
    forms::all().filter(|form| form.memory && form.missing_feature().is_none()).map(|form| {
        let native = Native::new(&form);
        let mut state = State::default();
        state.ymm = [V256([u64::MAX; 4]); host::VECTORS];
        state.ymm[forms::INDICES] = V256::default();
        (form, native, state)
    })
}

/// The alignment that is claimed is the one the host demands.
#[test]
fn alignment() {
    let mut wrong = Vec::new();
    for (form, native, mut state) in memory_forms() {
        // AMD's processors demand no alignment of SHA's operands, Intel's do (SDM volume 2, table 2-21).
        if form.code.cpuid_features().contains(&CpuidFeature::SHA) {
            continue;
        }
        state.offset = u64::from(form.op.align / 2).max(1);
        native.run(0, &mut state);
        if (state.signal != 0) != (form.op.align > 1) {
            wrong
                .push(format!("{:?}: align {}, signal {}", form.code, form.op.align, state.signal));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The size of memory that is claimed is what the host touches: up to the end of a page, and into the next when moved on.
#[test]
fn extent() {
    let end = host::end_of_memory();
    let mut wrong = Vec::new();
    for (form, native, state) in memory_forms() {
        let at = |address: u64| {
            let mut state = state.clone();
            state.offset = address.wrapping_sub(state.operand());
            native.run(0, &mut state);
            state.signal
        };
        let start = end - u64::from(form.op.memory);
        let inside = at(start);
        let beyond = at(start + u64::from(form.op.align));
        if inside != 0 || beyond != libc::SIGSEGV as u64 {
            wrong.push(format!("{:?}: {} bytes, {inside}, {beyond}", form.code, form.op.memory));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the extensions have beside the forms claimed is a list that one can read.
#[test]
fn nothing_is_forgotten() {
    use iced_x86::Mnemonic::{self, *};
    // Control and state, no vectors: the core's.
    const ELSEWHERE: [Mnemonic; 16] = [
        Emms,
        Fisttp,
        Ldmxcsr,
        Stmxcsr,
        Vldmxcsr,
        Vstmxcsr,
        Lfence,
        Mfence,
        Sfence,
        Movnti,
        Prefetchnta,
        Prefetcht0,
        Prefetcht1,
        Prefetcht2,
        Vzeroall,
        Vzeroupper,
    ];
    let claimed: BTreeSet<_> = forms::all().map(|form| form.code as usize).collect();
    let forgotten: Vec<_> = forms::of_extensions()
        .filter(|code| {
            !claimed.contains(&(*code as usize)) && !ELSEWHERE.contains(&code.mnemonic())
        })
        .collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
    println!("{} codes in {} forms", claimed.len(), forms::all().count());
}
