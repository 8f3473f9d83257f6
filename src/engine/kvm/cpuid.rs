//! What the guest's CPUID says: the machine's model, as far as KVM can perform it.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use mimic_cpu::x86::model::{Feature, Live, Model, feature};

/// Room for leaves.
pub(super) const MAX_LEAVES: usize = 256;

/// What KVM need not have, since it is ours: the local APIC with its timer, the MTRRs (their MSRs are filtered), and
/// that there is a hypervisor.
const OURS: [Feature; 5] =
    [feature::APIC, feature::X2APIC, feature::TSC_DEADLINE, feature::MTRR, feature::HYPERVISOR];

/// A register of a subleaf, of each entry for it.
fn registers(
    entries: &[kvm_cpuid_entry2],
    leaf: u32,
    subleaf: u32,
    register: usize,
) -> impl Iterator<Item = u32> {
    let of_it =
        entries.iter().filter(move |entry| (entry.function, entry.index) == (leaf, subleaf));
    of_it.map(move |entry| [entry.eax, entry.ebx, entry.ecx, entry.edx][register])
}

/// A register of a subleaf, of the first entry for it.
fn register(entries: &[kvm_cpuid_entry2], leaf: u32, subleaf: u32, register: usize) -> u32 {
    registers(entries, leaf, subleaf, register).next().unwrap_or(0)
}

fn has(entries: &[kvm_cpuid_entry2], feature: Feature) -> bool {
    let (leaf, subleaf, number, bit) = feature.place();
    registers(entries, leaf, subleaf, number).any(|word| word >> bit & 1 != 0)
}

/// The features of `model` that KVM cannot give a guest.
pub(super) fn missing(model: &Model, offered: &[kvm_cpuid_entry2]) -> Vec<Feature> {
    let there = |feature: &Feature| match *feature {
        // Nobody here takes IA32_PKRS to KVM and back, for lack of a KVM that has it.
        feature::PKS => false,
        // XSAVE is executed by the host's processor, so that PKRU lies where that has it.
        feature::PKU => {
            let place = model.cpuid(0xd, 9, Live::default())[1];
            has(offered, feature::PKU) && register(offered, 0xd, 9, 1) == place
        }
        feature => OURS.contains(&feature) || has(offered, feature),
    };
    let all = feature::ALL.iter().map(|(feature, ..)| *feature);
    all.filter(|feature| model.has(*feature) && !there(feature)).collect()
}

/// The physical address bits that KVM supports (SDM vol. 2, "CPUID": leaf 80000008H, EAX 7:0).
pub(super) fn physical_bits(offered: &[kvm_cpuid_entry2]) -> u32 {
    register(offered, 0x8000_0008, 0, 0) & 0xff
}

/// Names, for messages.
pub(super) fn names(features: &[Feature]) -> String {
    let names: Vec<&str> = features.iter().map(|feature| feature.name()).collect();
    names.join(" ")
}

/// All leaves of `model` for the processor with this APIC ID. KVM itself follows CR4, XCR0 and the local APIC.
pub(super) fn table(model: &Model, apic_id: u32) -> Vec<kvm_cpuid_entry2> {
    let live = Live { apic: true, apic_id, xcr0: 1, ..Live::default() };
    let last = |first: u32| first..=model.cpuid(first, 0, live)[0];
    let mut entries = Vec::new();
    for leaf in last(0).chain(last(0x8000_0000)) {
        let subleaves = match leaf {
            4 | 7 => 0..1,
            0xb => 0..3,
            0xd => 0..10,
            _ => 0..1,
        };
        let indexed = matches!(leaf, 4 | 7 | 0xb | 0xd);
        for index in subleaves {
            let [eax, ebx, ecx, edx] = model.cpuid(leaf, index, live);
            let flags = if indexed { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
            let function = leaf;
            entries.push(kvm_cpuid_entry2 {
                function,
                index,
                flags,
                eax,
                ebx,
                ecx,
                edx,
                padding: [0; 3],
            });
        }
    }
    entries
}

/// Features of which KVM tells the guest something else than `model` does: those that it adds, and those that it hides.
pub(super) fn overridden(
    model: &Model,
    read_back: &[kvm_cpuid_entry2],
) -> (Vec<Feature>, Vec<Feature>) {
    let differs = |there: bool| -> Vec<Feature> {
        let all = feature::ALL.iter().map(|(feature, ..)| *feature);
        all.filter(|feature| has(read_back, *feature) == there && model.has(*feature) != there)
            .collect()
    };
    (differs(true), differs(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_is_named() {
        let mut model = Model::v3();
        let all = table(&model, 0);
        assert!(missing(&model, &all).is_empty());
        model.set(feature::AVX2, false);
        model.set(feature::X2APIC, false);
        let less = table(&model, 0);
        assert_eq!(names(&missing(&Model::v3(), &less)), "AVX2");
        assert_eq!(physical_bits(&less), 40);
        let (added, hidden) = overridden(&model, &all);
        assert_eq!((names(&added), hidden.len()), ("X2APIC AVX2".to_owned(), 0));
    }

    #[test]
    fn protection_keys_must_lie_where_the_model_has_them() {
        let model: Model = "x86-64-v3,pku=on,pks=on".parse().unwrap();
        let mut supported = table(&model, 0);
        assert_eq!(names(&missing(&model, &supported)), "PKS");
        let keys = supported.iter_mut().find(|entry| (entry.function, entry.index) == (0xd, 9));
        // Where AMD's processors have them (APM vol. 3, "CPUID Fn0000_000D_EBX_x09").
        keys.unwrap().ebx = 832;
        assert_eq!(names(&missing(&model, &supported)), "PKU PKS");
    }

    #[test]
    fn the_table_holds_the_apic_id_and_the_topology() {
        // SDM vol. 2, "CPUID": leaf 1, EBX 31:24; leaf 0BH, EDX.
        let table = table(&Model::v3(), 5);
        assert_eq!(register(&table, 1, 0, 1) >> 24, 5);
        assert_eq!(register(&table, 0xb, 1, 3), 5);
        assert_eq!(register(&table, 0x8000_0001, 0, 3) >> 29 & 1, 1, "long mode");
    }
}
