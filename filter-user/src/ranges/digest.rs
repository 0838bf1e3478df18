//! The digest of a list: equal for lists that authorize the same sources until the same times.

use sha2::{Digest as _, Sha256};

use super::List;

impl List {
    /// SHA-256 of the list; order, comments and repetitions make no difference.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        match self {
            Self::Off => hasher.update("off"),
            Self::Ranges(entries) => {
                let mut lines: Vec<_> = entries
                    .iter()
                    .map(|entry| (entry.range, entry.expires))
                    .collect();
                lines.sort_unstable();
                lines.dedup();
                for (range, expires) in lines {
                    match range.network() {
                        std::net::IpAddr::V4(address) => hasher.update(address.octets()),
                        std::net::IpAddr::V6(address) => hasher.update(address.octets()),
                    }
                    let time = expires.map_or(i128::MAX, |time| time.as_nanosecond());
                    hasher.update([range.prefix_len()]);
                    hasher.update(time.to_be_bytes());
                }
            }
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use crate::ranges::RangesFile;

    fn digest(text: &str) -> [u8; 32] {
        RangesFile::parse(text).expect(text).list().digest()
    }

    #[test]
    fn order_comments_and_repetitions_change_no_digest() {
        let list = digest("10.0.0.0/8\n2001:db8::/32 expires=2027-01-01T00:00:00Z\n");
        assert_eq!(
            list,
            digest(
                "# x\n2001:db8::/32 expires=2027-01-01T01:00:00+01:00\n\n10.0.0.0/8 # y\n10.0.0.0/8\n"
            )
        );
        for other in [
            "10.0.0.0/8\n",
            "10.0.0.0/9\n2001:db8::/32 expires=2027-01-01T00:00:00Z\n",
            "10.0.0.0/8\n2001:db8::/32 expires=2027-01-01T00:00:01Z\n",
            "10.0.0.0/8\n2001:db8::/32\n",
            "disabled\n",
            "0.0.0.0/32\n",
        ] {
            assert_ne!(list, digest(other), "{other}");
        }
        assert_ne!(digest("disabled\n"), digest("0.0.0.0/32\n"));
    }
}
