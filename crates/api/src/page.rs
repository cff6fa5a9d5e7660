//! Lists in pages.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Answer;

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// `next` of the page before.
    pub(crate) after: Option<String>,
    /// How many, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u16>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// What is on it.
    pub(crate) items: Vec<T>,
    /// `after` of the next page; `null` at the end.
    pub(crate) next: Option<String>,
}

/// 1 to 200; 50 if not said.
pub(crate) fn limit(asked: Option<u16>) -> Result<u16, Answer> {
    match asked.unwrap_or(50) {
        limit @ 1..=200 => Ok(limit),
        _ => Err(Answer::unprocessable("limit", "A page holds 1 to 200.")),
    }
}

impl PageQuery {
    pub(crate) fn limit(&self) -> Result<u16, Answer> {
        limit(self.limit)
    }
}

impl<T> Page<T> {
    /// A list that is short enough to have one page.
    pub(crate) fn whole<R>(rows: Vec<R>) -> Self
    where
        T: From<R>,
    {
        Self { items: rows.into_iter().map(T::from).collect(), next: None }
    }

    /// Each item made into another.
    pub(crate) fn map<U>(self, each: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(each).collect(), next: self.next }
    }

    /// `id` says how an item is named as `next`. A full page may be followed by an empty one.
    pub(crate) fn of<R>(rows: Vec<R>, limit: u16, id: impl Fn(&R) -> String) -> Self
    where
        T: From<R>,
    {
        let next = (rows.len() >= usize::from(limit)).then(|| rows.last().map(id)).flatten();
        Self { items: rows.into_iter().map(T::from).collect(), next }
    }
}
