//! What the user has chosen to see, and the keys that choose it.

use super::members::Member;
use super::model::RelayModel;
use crate::terminal::keys::{Input, Key, KeyCode};

/// How far a page key scrolls, in rows.
const PAGE_ROWS: usize = 10;

/// The longest filter, in bytes.
const MAX_FILTER: usize = 256;

/// A column of the members' table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Address,
    Dialect,
    Age,
    Sent,
    Received,
    Pending,
    State,
}

impl Column {
    /// All of them, in the order in which they are shown.
    pub(super) const ALL: [Self; 8] = [
        Self::Name,
        Self::Address,
        Self::Dialect,
        Self::Age,
        Self::Sent,
        Self::Received,
        Self::Pending,
        Self::State,
    ];
}

/// The `Controls` are what the user has chosen to see.
#[derive(Debug)]
pub(super) struct Controls {
    /// The index of the relay whose figures are shown.
    pub(super) relay: usize,
    pub(super) sorted_by: Column,
    /// Whether the order is the opposite of the column's own: numbers begin with the largest, texts with the
    /// first.
    pub(super) is_reversed: bool,
    /// What the name, the address, the dialect or the state of a member must contain.
    pub(super) filter: String,
    /// Whether the filter is being typed.
    pub(super) is_typing: bool,
    /// How many members stand above the first that is shown.
    pub(super) offset: usize,
}

/// What a key asks of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// To show something else.
    Show,
    /// To paint everything again.
    Redraw,
    Suspend,
    Quit,
}

impl Controls {
    pub(super) const fn new() -> Self {
        Self {
            relay: 0,
            sorted_by: Column::Pending,
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            offset: 0,
        }
    }

    /// Applies a key or a paste. There are so many relays.
    pub(super) fn apply(&mut self, input: &Input, relays: usize) -> Action {
        match input {
            Input::Key(key) if key.ctrl => match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                KeyCode::Char('l') => Action::Redraw,
                KeyCode::Char('u') if self.is_typing => self.set_filter(String::new()),
                _ => Action::None,
            },
            Input::Key(Key { alt: true, .. }) => Action::None,
            Input::Key(key) if self.is_typing => self.type_key(key.code),
            Input::Key(key) => self.press(key.code, relays),
            Input::Paste(text) if self.is_typing => {
                self.set_filter(self.filter.clone() + text.lines().next().unwrap_or_default())
            }
            Input::Paste(_) | Input::Focus(_) => Action::None,
        }
    }

    fn type_key(&mut self, code: KeyCode) -> Action {
        let mut filter = self.filter.clone();
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Escape => {
                self.is_typing = false;
                filter.clear();
            }
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Char(char) => filter.push(char),
            _ => return Action::None,
        }
        self.set_filter(filter)
    }

    fn set_filter(&mut self, filter: String) -> Action {
        if filter.len() <= MAX_FILTER {
            self.filter = filter;
            self.offset = 0;
        }
        Action::Show
    }

    fn press(&mut self, code: KeyCode, relays: usize) -> Action {
        let relays = relays.max(1);
        match code {
            KeyCode::Char('q') => return Action::Quit,
            // The filter goes first: what hides most of the table should be easy to leave.
            KeyCode::Escape if self.filter.is_empty() => return Action::Quit,
            KeyCode::Escape => return self.set_filter(String::new()),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Tab => self.select((self.relay + 1) % relays),
            KeyCode::BackTab => self.select((self.relay + relays - 1) % relays),
            KeyCode::Char('<') | KeyCode::Left => self.sort_by(Column::ALL.len() - 1),
            KeyCode::Char('>') | KeyCode::Right => self.sort_by(1),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Up | KeyCode::Char('k') => self.offset = self.offset.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.offset = self.offset.saturating_add(1),
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(PAGE_ROWS),
            KeyCode::PageDown => self.offset = self.offset.saturating_add(PAGE_ROWS),
            KeyCode::Home => self.offset = 0,
            // The view knows how many members there are, and corrects it.
            KeyCode::End => self.offset = usize::MAX,
            _ => return Action::None,
        }
        Action::Show
    }

    const fn select(&mut self, relay: usize) {
        self.relay = relay;
        self.offset = 0;
    }

    /// Sorts by the column so many to the right, where the first follows the last.
    fn sort_by(&mut self, step: usize) {
        let all = Column::ALL;
        let index = all.iter().position(|&column| column == self.sorted_by);
        self.sorted_by = all[(index.unwrap_or_default() + step) % all.len()];
        self.is_reversed = false;
    }

    /// The members of a relay that the filter leaves, in the order that was chosen.
    pub(super) fn arrange<'a>(&self, relay: &'a RelayModel) -> Vec<&'a Member> {
        let filter = self.filter.to_lowercase();
        let members = relay.table().map_or(&[][..], |table| &table.members);
        let contains = |text: &str| text.to_lowercase().contains(&filter);
        let passes = |member: &&Member| {
            filter.is_empty()
                || member.name.as_deref().is_some_and(contains)
                || [&member.address, &member.dialect, &member.state]
                    .into_iter()
                    .any(|text| contains(text))
        };
        let mut members: Vec<_> = members.iter().filter(passes).collect();
        let rates = |member: &Member| relay.rates_of(member).unwrap_or_default();
        members.sort_by(|one, other| {
            let order = match self.sorted_by {
                Column::Name => one.name.cmp(&other.name),
                Column::Address => one.address.cmp(&other.address),
                Column::Dialect => one.dialect.cmp(&other.dialect),
                Column::Age => other.age.cmp(&one.age),
                Column::Sent => rates(other).0.total_cmp(&rates(one).0),
                Column::Received => rates(other).1.total_cmp(&rates(one).1),
                Column::Pending => other.pending.cmp(&one.pending),
                Column::State => one.state.cmp(&other.state),
            };
            // Those that are equal keep one order, so that rows do not jump.
            let order = if self.is_reversed {
                order.reverse()
            } else {
                order
            };
            order.then_with(|| age_order(one).cmp(&age_order(other)))
        });
        members
    }
}

/// Identities are numbers without zeros in front, of which older members have smaller ones.
const fn age_order(member: &Member) -> (usize, &str) {
    (member.id.len(), member.id.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::members::MembersTable;
    use super::super::model::Answer;
    use super::*;
    use std::time::Instant;

    fn press(controls: &mut Controls, code: KeyCode) -> Action {
        controls.apply(&Input::Key(Key::plain(code)), 3)
    }

    fn type_text(controls: &mut Controls, text: &str) {
        for char in text.chars() {
            assert_eq!(press(controls, KeyCode::Char(char)), Action::Show, "{char}");
        }
    }

    fn relay(members: &[(&str, u64, &str)]) -> RelayModel {
        let rows: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(id, (name, pending, state))| {
                format!(
                    r#"{{"id":"{id}","name":"{name}","address":"192.0.2.{id}:1","dialect":"chat10",
                    "age":{id},"sent":0,"received":0,"pending":{pending},"state":"{state}"}}"#
                )
            })
            .collect();
        let text = format!(
            r#"{{"slow":"pace","soft_limit":1,"queue_limit":2,"members":[{}]}}"#,
            rows.join(",")
        );
        let table = Some(MembersTable::parse(text.as_bytes()).unwrap());
        let mut relay = RelayModel::new("one".to_owned());
        let figures = super::super::figures::Figures::default();
        relay.update(Ok(Answer { figures, table }), Instant::now());
        relay
    }

    fn names(controls: &Controls, relay: &RelayModel) -> Vec<String> {
        let members = controls.arrange(relay).into_iter();
        members.map(|member| member.name.clone().unwrap()).collect()
    }

    #[test]
    fn members_are_in_the_order_of_the_chosen_column() {
        let relay = relay(&[("Carol", 5, "ok"), ("alice", 9, "slow"), ("bob", 5, "ok")]);
        let mut controls = Controls::new();
        assert_eq!(names(&controls, &relay), ["alice", "Carol", "bob"]);
        press(&mut controls, KeyCode::Char('r'));
        assert_eq!(names(&controls, &relay), ["Carol", "bob", "alice"]);
        press(&mut controls, KeyCode::Char('>'));
        assert_eq!(controls.sorted_by, Column::State);
        press(&mut controls, KeyCode::Char('>'));
        assert_eq!(controls.sorted_by, Column::Name);
        assert_eq!(names(&controls, &relay), ["Carol", "alice", "bob"]);
        press(&mut controls, KeyCode::Char('<'));
        assert_eq!(names(&controls, &relay), ["Carol", "bob", "alice"]);
    }

    #[test]
    fn filter_leaves_the_members_that_contain_it_and_escape_removes_it_before_it_quits() {
        let relay = relay(&[
            ("Carol", 5, "ok"),
            ("alice", 9, "slow"),
            ("quentin", 5, "ok"),
        ]);
        let mut controls = Controls::new();
        press(&mut controls, KeyCode::Char('/'));
        type_text(&mut controls, "qx");
        press(&mut controls, KeyCode::Backspace);
        assert_eq!(names(&controls, &relay), ["quentin"]);
        press(&mut controls, KeyCode::Enter);
        assert_eq!(press(&mut controls, KeyCode::Escape), Action::Show);
        assert_eq!(names(&controls, &relay).len(), 3);
        press(&mut controls, KeyCode::Char('/'));
        let paste = Input::Paste("SLOW\nmore".to_owned());
        assert_eq!(controls.apply(&paste, 3), Action::Show);
        assert_eq!(names(&controls, &relay), ["alice"]);
        assert_eq!(press(&mut controls, KeyCode::Escape), Action::Show);
        assert_eq!(press(&mut controls, KeyCode::Escape), Action::Quit);
    }

    #[test]
    fn tab_selects_each_relay_in_turn() {
        let mut controls = Controls::new();
        let mut next = |code| {
            press(&mut controls, code);
            controls.relay
        };
        let selected = [KeyCode::Tab, KeyCode::Tab, KeyCode::Tab, KeyCode::BackTab].map(&mut next);
        assert_eq!(selected, [1, 2, 0, 2]);
    }
}
