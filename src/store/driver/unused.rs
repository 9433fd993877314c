//! Types of a [`Database`] that sqlx's traits ask for, and that `Any` never uses.
//!
//! None of these has a value, except the empty arguments, as their trait demands a default.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;

use sqlx::error::BoxDynError;
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{
    Arguments, Column, ColumnIndex, Database, Either, Encode, Error, FromRow, IntoArguments, Row, SqlStr,
    Statement, Type, TypeInfo, Value, ValueRef,
};
use sqlx_core::transaction::TransactionManager;

use super::{Backend, Connected, Driver};

/// Type without a value.
pub(super) struct Unused<B> {
    never: Infallible,
    backend: PhantomData<fn() -> B>,
}

/// Arguments of no statement.
pub(super) struct NoArguments<B>(PhantomData<fn() -> B>);

/// Returns the error of what only `Any` may do.
pub(super) fn error() -> Error {
    Error::AnyDriverError("this connection is used through sqlx's `Any` only".into())
}

impl<B> Clone for Unused<B> {
    fn clone(&self) -> Self {
        match self.never {}
    }
}

impl<B> PartialEq for Unused<B> {
    fn eq(&self, _: &Self) -> bool {
        match self.never {}
    }
}

impl<B> fmt::Debug for Unused<B> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = self.backend;
        match self.never {}
    }
}

impl<B> fmt::Display for Unused<B> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.never {}
    }
}

impl<B: Backend> TransactionManager for Unused<B> {
    type Database = Driver<B>;

    async fn begin(_: &mut Connected<B>, _: Option<SqlStr>) -> Result<(), Error> {
        Err(error())
    }

    async fn commit(_: &mut Connected<B>) -> Result<(), Error> {
        Err(error())
    }

    async fn rollback(_: &mut Connected<B>) -> Result<(), Error> {
        Err(error())
    }

    fn start_rollback(_: &mut Connected<B>) {}

    fn get_transaction_depth(_: &Connected<B>) -> usize {
        0
    }
}

impl<B: Backend> Row for Unused<B> {
    type Database = Driver<B>;

    fn columns(&self) -> &[Self] {
        match self.never {}
    }

    fn try_get_raw<I: ColumnIndex<Self>>(&self, _: I) -> Result<Self, Error> {
        match self.never {}
    }
}

impl<B: Backend> Column for Unused<B> {
    type Database = Driver<B>;

    fn ordinal(&self) -> usize {
        match self.never {}
    }

    fn name(&self) -> &str {
        match self.never {}
    }

    fn type_info(&self) -> &Self {
        match self.never {}
    }
}

impl<B: Backend> TypeInfo for Unused<B> {
    fn is_null(&self) -> bool {
        match self.never {}
    }

    fn name(&self) -> &str {
        match self.never {}
    }
}

impl<B: Backend> Value for Unused<B> {
    type Database = Driver<B>;

    fn as_ref(&self) -> Self {
        match self.never {}
    }

    fn type_info(&self) -> Cow<'_, Self> {
        match self.never {}
    }

    fn is_null(&self) -> bool {
        match self.never {}
    }
}

impl<'r, B: Backend> ValueRef<'r> for Unused<B> {
    type Database = Driver<B>;

    fn to_owned(&self) -> Self {
        match self.never {}
    }

    fn type_info(&self) -> Cow<'_, Self> {
        match self.never {}
    }

    fn is_null(&self) -> bool {
        match self.never {}
    }
}

impl<B> Default for NoArguments<B> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<B: Backend> Arguments for NoArguments<B> {
    type Database = Driver<B>;

    fn reserve(&mut self, _: usize, _: usize) {}

    fn add<'t, T>(&mut self, _: T) -> Result<(), BoxDynError>
    where
        T: Encode<'t, Self::Database> + Type<Self::Database>,
    {
        Err(error().into())
    }

    fn len(&self) -> usize {
        0
    }
}

impl<B: Backend> Statement for Unused<B> {
    type Database = Driver<B>;

    fn into_sql(self) -> SqlStr {
        match self.never {}
    }

    fn sql(&self) -> &SqlStr {
        match self.never {}
    }

    fn parameters(&self) -> Option<Either<&[Self], usize>> {
        match self.never {}
    }

    fn columns(&self) -> &[Self] {
        match self.never {}
    }

    fn query(&self) -> Query<'_, Self::Database, NoArguments<B>> {
        match self.never {}
    }

    fn query_with<A: IntoArguments<Self::Database>>(&self, _: A) -> Query<'_, Self::Database, A> {
        match self.never {}
    }

    fn query_as<O>(&self) -> QueryAs<'_, Self::Database, O, NoArguments<B>>
    where
        O: for<'r> FromRow<'r, <Self::Database as Database>::Row>,
    {
        match self.never {}
    }

    fn query_as_with<'s, O, A>(&'s self, _: A) -> QueryAs<'s, Self::Database, O, A>
    where
        O: for<'r> FromRow<'r, <Self::Database as Database>::Row>,
        A: IntoArguments<Self::Database>,
    {
        match self.never {}
    }

    fn query_scalar<O>(&self) -> QueryScalar<'_, Self::Database, O, NoArguments<B>>
    where
        (O,): for<'r> FromRow<'r, <Self::Database as Database>::Row>,
    {
        match self.never {}
    }

    fn query_scalar_with<'s, O, A>(&'s self, _: A) -> QueryScalar<'s, Self::Database, O, A>
    where
        (O,): for<'r> FromRow<'r, <Self::Database as Database>::Row>,
        A: IntoArguments<Self::Database>,
    {
        match self.never {}
    }
}
