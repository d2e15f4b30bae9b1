//! Which price a model's name gets, and why.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::model_name::{normal_form, without_at_date, without_date};
use super::price_table::PriceTable;
use super::rates::ModelPrice;

/// Why a price table is refused, whole.
#[derive(Debug, thiserror::Error)]
pub enum PriceBookError {
    /// It is not JSON of the documented shape.
    #[error("price table is not of the documented shape")]
    Shape(#[from] serde_json::Error),
    /// A format that this version does not read.
    #[error("price table has format {0}, expected 1")]
    Format(u32),
    /// Prices in another currency than US dollars.
    #[error("price table is in {0:?}, expected USD")]
    Currency(Box<str>),
    /// A model's entry contradicts the rules.
    #[error("price of {provider}/{model}: {reason}")]
    Model {
        /// The provider of the entry.
        provider: Box<str>,
        /// The model of the entry.
        model: Box<str>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two entries, or two aliases, for one name.
    #[error("{provider}/{name} is listed twice")]
    Twice {
        /// The provider of both.
        provider: Box<str>,
        /// The name of both.
        name: Box<str>,
    },
    /// An alias for a model that is not in the table.
    #[error("alias {provider}/{alias} names a model that has no price")]
    DanglingAlias {
        /// The provider of the alias.
        provider: Box<str>,
        /// The alias.
        alias: Box<str>,
    },
}

/// How a name found its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The table has this very name.
    Exact,
    /// An operator gave the model this name.
    Alias,
    /// The table has the same name in another spelling.
    Normalised,
    /// The table has the name without its date.
    Undated,
}

impl Rule {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Alias => "alias",
            Self::Normalised => "normalised",
            Self::Undated => "undated",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A price, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resolved<'book> {
    /// The price.
    pub price: &'book ModelPrice,
    /// The rule that found it.
    pub rule: Rule,
}

/// All prices that calls are priced by, indexed by provider and name.
#[derive(Debug, Clone, Default)]
pub struct PriceBook {
    providers: HashMap<Box<str>, Shelf>,
}

/// One provider's models.
#[derive(Debug, Clone, Default)]
struct Shelf {
    exact: HashMap<Box<str>, Arc<ModelPrice>>,
    aliases: HashMap<Box<str>, Arc<ModelPrice>>,
    /// By normal form, where that differs from the name. `None`: models with different prices share it.
    normalised: HashMap<Box<str>, Option<Arc<ModelPrice>>>,
}

static EMBEDDED: LazyLock<Arc<PriceBook>> = LazyLock::new(|| {
    let book = PriceBook::from_json(include_str!("../../../data/model_prices.json"))
        .unwrap_or_else(|error| unreachable!("the embedded price table is checked by a test: {error}"));
    Arc::new(book)
});

impl PriceBook {
    /// The table that comes with the server; read at first use.
    #[must_use]
    pub fn embedded() -> Arc<Self> {
        Arc::clone(&EMBEDDED)
    }

    /// Reads a table in the format of `data/model_prices.json`, with an optional list
    /// `aliases: [{provider, alias, model, model_provider?}]`.
    ///
    /// # Errors
    ///
    /// [`PriceBookError`] at the first thing wrong; no part of such a table is used.
    pub fn from_json(json: &str) -> Result<Self, PriceBookError> {
        let table = PriceTable::parse(json)?;
        let mut book = Self::default();
        for entry in table.models {
            book.add(Arc::new(entry.into_price()?))?;
        }
        for alias in table.aliases {
            let target_provider = alias.model_provider.as_ref().unwrap_or(&alias.provider);
            let target =
                book.providers.get(target_provider).and_then(|shelf| shelf.exact.get(&alias.model)).map(Arc::clone);
            let Some(price) = target else {
                return Err(PriceBookError::DanglingAlias { provider: alias.provider, alias: alias.alias });
            };
            let shelf = book.providers.entry(alias.provider.clone()).or_default();
            if shelf.aliases.insert(alias.alias.clone(), price).is_some() {
                return Err(PriceBookError::Twice { provider: alias.provider, name: alias.alias });
            }
        }
        Ok(book)
    }

    fn add(&mut self, price: Arc<ModelPrice>) -> Result<(), PriceBookError> {
        let shelf = self.providers.entry(price.provider.clone()).or_default();
        let normal = normal_form(&price.provider, &price.model);
        if *normal != *price.model {
            match shelf.normalised.entry(normal.into()) {
                Entry::Vacant(free) => {
                    free.insert(Some(Arc::clone(&price)));
                }
                Entry::Occupied(mut taken) => {
                    if taken.get().as_ref().is_some_and(|other| other.terms != price.terms) {
                        taken.insert(None);
                    }
                }
            }
        }
        match shelf.exact.entry(price.model.clone()) {
            Entry::Vacant(free) => {
                free.insert(price);
                Ok(())
            }
            Entry::Occupied(taken) => {
                Err(PriceBookError::Twice { provider: price.provider.clone(), name: taken.key().clone() })
            }
        }
    }

    /// Finds the price of a model: by its exact name, else by an alias, else by another spelling of the same name,
    /// else without the date at its end. Never by a part of the name, and never at another provider.
    #[must_use]
    pub fn resolve(&self, provider: &str, model: &str) -> Option<Resolved<'_>> {
        if let Some(shelf) = self.providers.get(provider) {
            if let Some(price) = shelf.exact.get(model) {
                let rule = Rule::Exact;
                return Some(Resolved { price, rule });
            }
            if let Some(price) = shelf.aliases.get(model) {
                let rule = Rule::Alias;
                return Some(Resolved { price, rule });
            }
        }
        let provider = provider.to_lowercase();
        let shelf = self.providers.get(provider.as_str())?;
        let normal = normal_form(&provider, model);
        let undecorated = without_at_date(&normal);
        if let Some(price) = shelf.by_normal_form(&normal).or_else(|| shelf.by_normal_form(undecorated?)) {
            let rule = Rule::Normalised;
            return Some(Resolved { price, rule });
        }
        let price = shelf.by_normal_form(without_date(&normal)?)?;
        let rule = Rule::Undated;
        Some(Resolved { price, rule })
    }

    /// Every price, in no particular order.
    pub fn prices(&self) -> impl Iterator<Item = &ModelPrice> {
        self.providers.values().flat_map(|shelf| shelf.exact.values()).map(Arc::as_ref)
    }
}

impl Shelf {
    /// A model whose own name is the normal form comes before one that is only another spelling of it.
    fn by_normal_form(&self, normal: &str) -> Option<&ModelPrice> {
        self.exact.get(normal).or_else(|| self.normalised.get(normal)?.as_ref()).map(Arc::as_ref)
    }
}
