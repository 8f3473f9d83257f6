//! Dates and the form in which the clock's registers show them.

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// How registers show numbers: register B's bits DM and 24/12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) binary: bool,
    pub(super) hours_24: bool,
}

/// Bit of the hour that says p.m.
const PM: u8 = 0x80;

impl Format {
    pub(super) fn encode(self, value: u8) -> u8 {
        if self.binary { value } else { value / 10 << 4 | value % 10 }
    }

    pub(super) fn decode(self, byte: u8) -> i64 {
        let byte = i64::from(byte);
        if self.binary { byte } else { (byte >> 4) * 10 + (byte & 0xf) }
    }

    pub(super) fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let pm = if hour >= 12 { PM } else { 0 };
        self.encode((hour + 11) % 12 + 1) | pm
    }

    pub(super) fn decode_hour(self, byte: u8) -> i64 {
        if self.hours_24 {
            return self.decode(byte);
        }
        let pm = if byte & PM != 0 { 12 } else { 0 };
        self.decode(byte & !PM) % 12 + pm
    }
}

/// A date of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i64,
    /// 1 to 12.
    pub(super) month: i64,
    /// From 1 on.
    pub(super) day: i64,
}

/// Days of 400 years, of 100, of 4 and of one, the leap day last: years begin in March.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const TO_1970: i64 = 719_468;

impl Date {
    /// Days since 1970-01-01. A month or day beyond its range counts on.
    pub(super) fn days(self) -> i64 {
        let months = self.year * 12 + self.month - 1 - 2;
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
        let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        // Months from March on: 31, 30, 31, 30, 31 days, over and over.
        year * 365 + leaps + (month * 153 + 2) / 5 + self.day - 1 - TO_1970
    }

    pub(super) fn from_days(days: i64) -> Self {
        let days = days + TO_1970;
        let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
        let day = day - (year * 365 + year / 4 - year / 100);
        let month = (day * 5 + 2) / 153;
        let months = (era * 400 + year) * 12 + month + 2;
        Self {
            year: months.div_euclid(12),
            month: months.rem_euclid(12) + 1,
            day: day - (month * 153 + 2) / 5 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_known_dates() {
        // `date -u -d DATE +%s` divided by 86400.
        for (year, month, day, days) in [
            (1970, 1, 1, 0),
            (2000, 2, 29, 11_016),
            (2000, 3, 1, 11_017),
            (1900, 3, 1, -25_508),
            (2026, 11, 21, 20_778),
            (2100, 2, 28, 47_540),
            (2100, 3, 1, 47_541),
            (1969, 12, 31, -1),
        ] {
            let date = Date { year, month, day };
            assert_eq!(date.days(), days, "{date:?}");
            assert_eq!(Date::from_days(days), date);
        }
    }

    #[test]
    fn every_day_comes_back() {
        for days in (-800_000..3_000_000).step_by(7) {
            assert_eq!(Date::from_days(days).days(), days);
        }
    }

    #[test]
    fn hours_in_both_forms() {
        // MC146818, "Time, calendar and alarm locations": hours in 12-hour mode are 01-12 and 81-92.
        let format = Format { binary: false, hours_24: false };
        for (hour, byte) in [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)] {
            assert_eq!(format.encode_hour(hour), byte);
            assert_eq!(format.decode_hour(byte), hour.into());
        }
        let binary = Format { binary: true, hours_24: true };
        assert_eq!((binary.encode_hour(23), binary.decode_hour(23)), (23, 23));
    }
}
