//! The chosen row of a table. It follows its row as the order changes, so that a key never meets
//! another row than the one that was chosen.

use crossterm::event::KeyCode;

use super::rows::{RowKey, TableRow};

#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    /// The row; none for the first one, whichever that is.
    key: Option<RowKey>,
    /// Where the row was last, for when it has gone.
    last: usize,
    /// The first line that is shown.
    pub(crate) offset: usize,
}

impl Cursor {
    /// The number of the chosen row; none in an empty table.
    pub(crate) fn place(&self, rows: &[TableRow]) -> Option<usize> {
        let key = self.key.as_ref();
        let found = key.and_then(|key| rows.iter().position(|row| row.key == *key));
        let last = rows.len().checked_sub(1)?;
        Some(match key {
            None => 0,
            Some(_) => found.unwrap_or(self.last).min(last),
        })
    }

    /// Moves by a key; `page` is how many lines are shown.
    pub(crate) fn press(&mut self, code: KeyCode, rows: &[TableRow], page: usize) {
        let Some(place) = self.place(rows) else {
            return;
        };
        let place = match code {
            KeyCode::Down => place + 1,
            KeyCode::Up => place.saturating_sub(1),
            KeyCode::PageDown => place + page,
            KeyCode::PageUp => place.saturating_sub(page),
            KeyCode::End => rows.len() - 1,
            KeyCode::Home => {
                *self = Self::default();
                return;
            }
            _ => return,
        };
        self.last = place.min(rows.len() - 1);
        self.key = Some(rows[self.last].key.clone());
    }

    /// Scrolls so that the chosen row is among the `room` lines; returns its number.
    pub(crate) fn scroll(&mut self, rows: &[TableRow], room: usize) -> Option<usize> {
        let place = self.place(rows)?;
        self.last = place;
        self.offset = self.offset.min(rows.len().saturating_sub(room));
        if place < self.offset {
            self.offset = place;
        } else if place >= self.offset + room {
            self.offset = (place + 1).saturating_sub(room);
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(addresses: &[u8]) -> Vec<TableRow> {
        let row = |last: &u8| TableRow {
            key: RowKey::Source(Some([203, 0, 113, *last].into())),
            cells: Vec::new(),
        };
        addresses.iter().map(row).collect()
    }

    #[test]
    fn it_follows_its_row_and_stays_near_where_it_was() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.place(&rows(&[])), None);
        assert_eq!(cursor.place(&rows(&[1, 2, 3])), Some(0));
        cursor.press(KeyCode::Down, &rows(&[1, 2, 3]), 2);
        assert_eq!(cursor.place(&rows(&[1, 2, 3])), Some(1));
        assert_eq!(cursor.place(&rows(&[3, 1, 2])), Some(2), "it follows");
        assert_eq!(cursor.place(&rows(&[3, 1])), Some(1), "it has gone");
        cursor.press(KeyCode::End, &rows(&[1, 2, 3, 4, 5]), 2);
        assert_eq!(cursor.scroll(&rows(&[1, 2, 3, 4, 5]), 2), Some(4));
        assert_eq!(cursor.offset, 3);
        cursor.press(KeyCode::PageUp, &rows(&[1, 2, 3, 4, 5]), 2);
        assert_eq!(cursor.scroll(&rows(&[1, 2, 3, 4, 5]), 2), Some(2));
        assert_eq!(cursor.offset, 2);
        cursor.press(KeyCode::Home, &rows(&[1, 2, 3, 4, 5]), 2);
        assert_eq!(
            cursor.place(&rows(&[9, 1, 2])),
            Some(0),
            "the first, whichever"
        );
    }
}
