//! Whether a hart that comes out of a file is one that could run: every field legal (the WARL fields of the
//! privileged manual's chapters 3 and 10), so that no engine meets a state it could not have made itself.

use super::csr::fields::{MCOUNTINHIBIT, MEDELEG, envcfg, irq, mstatus};
use super::hart::Hart;

/// Most instructions a saved hart may have retired: what is added to the count stays far from its end.
const MAX_RETIRED: u64 = 1 << 62;

impl Hart {
    /// Checks every field.
    ///
    /// # Errors
    /// The name of the first field that holds what no running hart can hold.
    pub fn check(&self) -> Result<(), &'static str> {
        let Hart {
            model,
            hartid: _,
            x,
            f: _,
            pc,
            mode: _,
            waiting: _,
            reservation,
            retired,
            fflags,
            frm,
            mstatus: status,
            medeleg,
            mideleg,
            mie,
            mip,
            mtvec,
            mcounteren,
            mcountinhibit,
            mscratch: _,
            mepc,
            mcause: _,
            mtval: _,
            menvcfg,
            mcycle,
            minstret,
            pmp,
            stvec,
            scounteren,
            sscratch: _,
            sepc,
            scause: _,
            stval: _,
            senvcfg,
            satp,
            stimecmp: _,
        } = self;
        let within = |value: &u64, mask: u64| value & !mask == 0;
        let reserved_is_legal = reservation.is_none_or(|r| {
            let fits = r.bytes == 8 || r.bytes == 4 && r.value >> 32 == 0;
            fits && r.gpa.is_multiple_of(r.bytes)
        });
        let cbie_is_legal = |value: &u64| value & envcfg::CBIE != 2 << envcfg::CBIE_SHIFT;
        let fields = [
            ("x0", x[0] == 0),
            ("pc", pc & 1 == 0),
            ("reservation", reserved_is_legal),
            ("retired", *retired <= MAX_RETIRED),
            ("fflags", *fflags <= 0x1f),
            ("frm", *frm <= 7),
            ("mstatus", within(status, mstatus::WRITABLE | mstatus::XLEN_64)),
            ("mstatus.UXL", status & mstatus::XLEN_64 == mstatus::XLEN_64),
            ("mstatus.MPP", status & mstatus::MPP != 2 << mstatus::MPP_SHIFT),
            ("medeleg", within(medeleg, MEDELEG)),
            ("mideleg", within(mideleg, irq::SUPERVISOR)),
            ("mie", within(mie, irq::ALL)),
            ("mip", within(mip, irq::SUPERVISOR)),
            ("mtvec", mtvec & 2 == 0),
            ("mcounteren", mcounteren >> 32 == 0),
            ("mcountinhibit", within(mcountinhibit, MCOUNTINHIBIT)),
            ("mepc", mepc & 1 == 0),
            ("menvcfg", within(menvcfg, model.menvcfg_writable()) && cbie_is_legal(menvcfg)),
            ("mcycle", mcycle.inhibited == (mcountinhibit & 1 != 0)),
            ("minstret", minstret.inhibited == (mcountinhibit & 4 != 0)),
            ("pmp", pmp.is_legal()),
            ("stvec", stvec & 2 == 0),
            ("scounteren", scounteren >> 32 == 0),
            ("sepc", sepc & 1 == 0),
            ("senvcfg", within(senvcfg, envcfg::SENVCFG) && cbie_is_legal(senvcfg)),
            ("satp", matches!(satp >> 60, 0 | 8 | 9 | 10)),
        ];
        fields.into_iter().find(|(_, legal)| !legal).map_or(Ok(()), |(name, _)| Err(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::riscv::hart::Reservation;

    #[test]
    fn a_fresh_hart_is_legal_and_broken_ones_are_named() {
        assert_eq!(Hart::new(3, 0x1000).check(), Ok(()));
        let refuse = |name, change: fn(&mut Hart)| {
            let mut hart = Hart::new(0, 0x1000);
            change(&mut hart);
            assert_eq!(hart.check(), Err(name));
        };
        refuse("x0", |hart| hart.x[0] = 1);
        refuse("pc", |hart| hart.pc = 0x1001);
        refuse("frm", |hart| hart.frm = 8);
        refuse("fflags", |hart| hart.fflags = 0x20);
        refuse("retired", |hart| hart.retired = u64::MAX);
        refuse("mstatus", |hart| hart.mstatus |= mstatus::SD);
        refuse("mstatus.UXL", |hart| hart.mstatus &= !mstatus::XLEN_64);
        refuse("mstatus.MPP", |hart| hart.mstatus |= 2 << mstatus::MPP_SHIFT);
        refuse("medeleg", |hart| hart.medeleg = 1 << 11);
        refuse("mideleg", |hart| hart.mideleg = irq::MTI);
        refuse("mie", |hart| hart.mie = 1);
        refuse("mip", |hart| hart.mip = irq::MTI);
        refuse("mtvec", |hart| hart.mtvec = 2);
        refuse("mcountinhibit", |hart| hart.mcountinhibit = 2);
        refuse("mcycle", |hart| hart.mcycle.inhibited = true);
        refuse("minstret", |hart| hart.mcountinhibit = 4);
        refuse("menvcfg", |hart| hart.menvcfg = 2 << envcfg::CBIE_SHIFT);
        refuse("senvcfg", |hart| hart.senvcfg = envcfg::STCE);
        refuse("sepc", |hart| hart.sepc = 1);
        refuse("satp", |hart| hart.satp = 1 << 60);
        for reservation in [
            Reservation { gpa: 0x8000_0002, bytes: 4, value: 0 },
            Reservation { gpa: 0x8000_0000, bytes: 4, value: 1 << 32 },
            Reservation { gpa: 0x8000_0000, bytes: 2, value: 0 },
        ] {
            let hart = Hart { reservation: Some(reservation), ..Hart::new(0, 0) };
            assert_eq!(hart.check(), Err("reservation"), "{reservation:?}");
        }
    }

    /// A bit that the reserved combination R=0, W=1 sets, through the file's form: the fields are private.
    #[test]
    fn illegal_pmp_entries_are_refused() {
        let mut hart = Hart::new(0, 0);
        hart.pmp.write_cfg(0, 0x18 | 7);
        assert_eq!(hart.check(), Ok(()));
        let mut bytes = serde_json::to_value(&hart).unwrap();
        bytes["pmp"]["cfg"][0] = 2.into();
        let read: Hart = serde_json::from_value(bytes.clone()).unwrap();
        assert_eq!(read.check(), Err("pmp"));
        bytes["pmp"]["cfg"][0] = 0x1f.into();
        bytes["pmp"]["active"] = 7.into();
        let read: Hart = serde_json::from_value(bytes).unwrap();
        assert_eq!(read.check(), Err("pmp"));
    }
}
