//! Which series a writer may not change, since other roles wrote them: asked before a change that takes several
//! scripts.
//!
//! Not the last word: a series may get another role in between, so the scripts that change series compare its role
//! again. Invariant: a change of several scripts begins only where none of them was going to refuse.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::Cmd;

use super::super::core::client::Traffic;
use super::super::core::replies::{ReplyReader, malformed};
use super::Inner;
use super::scripts::OTHERS;
use crate::model::roles::RoleName;
use crate::store::{OthersSeries, SeriesWriter, StoreResult};

/// The most scripts that ask at the same time.
const MAX_IN_FLIGHT: usize = 16;

/// Some series of one shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) shard: usize,
    /// Their ids, 16 bytes each.
    pub(super) ids: &'a [u8],
    /// What the caller knows each by.
    pub(super) positions: &'a [usize],
}

/// Returns the roles whose series a writer may change as the scripts read them, see `lua/roles.lua`.
pub(super) fn roles_argument(writer: &SeriesWriter) -> Vec<u8> {
    let Some(roles) = &writer.may_change else { return b"*".to_vec() };
    let mut argument = Vec::new();
    for role in roles.iter().map(RoleName::as_str) {
        argument.extend(u8::try_from(role.len()));
        argument.extend(role.as_bytes());
    }
    argument
}

/// Reads the series of others behind the word `others` of a reply; `position_of` turns the script's index into the
/// caller's.
pub(super) fn read_others(
    mut reply: ReplyReader,
    position_of: impl Fn(usize) -> Option<usize>,
) -> StoreResult<OthersSeries<usize>> {
    let total = reply.number()?;
    let mut items = reply.buffers();
    let mut first = Vec::new();
    while let Some(index) = items.next() {
        let (index, role) = (index?, items.next().ok_or_else(|| malformed(&"no role"))??);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| malformed(&error));
        let index: usize = text(index)?.parse().map_err(|error| malformed(&error))?;
        let position = position_of(index).ok_or_else(|| malformed(&index))?;
        first.push((position, RoleName::parse(&text(role)?).map_err(|error| malformed(&error))?));
    }
    Ok(OthersSeries { first, total })
}

/// Adds up what several scripts found: the first by their positions are kept.
pub(super) fn add_others(sum: &mut OthersSeries<usize>, found: OthersSeries<usize>) {
    sum.total += found.total;
    sum.first.extend(found.first);
    sum.first.sort_by_key(|(position, _)| *position);
    sum.first.truncate(OthersSeries::REPORTED);
}

impl Inner {
    /// Finds the series that a writer may not change among many.
    pub(super) async fn others_among(
        &self,
        asked: Vec<Asked<'_>>,
        writer: &SeriesWriter,
    ) -> StoreResult<OthersSeries<usize>> {
        let mut all = OthersSeries::default();
        if writer.may_change.is_none() {
            return Ok(all);
        }
        let roles = &roles_argument(writer);
        let asks: Vec<_> = asked.into_iter().map(|asked| self.ask(asked, roles)).collect();
        let replies: Vec<_> = stream::iter(asks).buffered(MAX_IN_FLIGHT).try_collect().await?;
        for found in replies {
            add_others(&mut all, found);
        }
        Ok(all)
    }

    async fn ask(&self, asked: Asked<'_>, roles: &[u8]) -> StoreResult<OthersSeries<usize>> {
        let Asked { shard, ids, positions } = asked;
        let arguments = |command: &mut Cmd| {
            command.arg(roles).arg(ids);
        };
        let traffic = if positions.len() <= 1 { Traffic::Small } else { Traffic::Bulk };
        let reply = self.run(shard, traffic, &OTHERS, arguments).await?;
        let mut reply = ReplyReader::new(reply.value)?;
        match reply.text()?.as_str() {
            "none" => Ok(OthersSeries::default()),
            "others" => read_others(reply, |index| positions.get(index).copied()),
            other => Err(malformed(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_all_scripts_are_kept() {
        let role = RoleName::parse("r").expect("valid");
        let found = |positions: std::ops::Range<usize>| {
            let mut others = OthersSeries::default();
            positions.rev().for_each(|position| others.add(position, &role));
            others
        };
        let mut sum = found(60..160);
        add_others(&mut sum, found(0..80));
        assert_eq!((sum.total, sum.first.len()), (180, OthersSeries::REPORTED));
        assert!(sum.first.is_sorted_by_key(|(position, _)| *position));
        assert_eq!(sum.first[79].0, 69, "60 to 79 are twice among them");
    }

    #[test]
    fn a_writer_of_no_roles_is_not_one_of_all() {
        let writer = |roles: Option<&[&str]>| {
            let parse = |name: &&str| RoleName::parse(name).expect("valid");
            let may_change = roles.map(|roles| roles.iter().map(parse).collect());
            SeriesWriter { may_change, ..SeriesWriter::anybody() }
        };
        assert_eq!(roles_argument(&writer(None)), b"*");
        assert_eq!(roles_argument(&writer(Some(&[]))), b"");
        assert_eq!(roles_argument(&writer(Some(&["a", "bc"]))), b"\x01a\x02bc");
    }
}
