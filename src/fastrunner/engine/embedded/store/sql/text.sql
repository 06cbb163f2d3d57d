-- Templates for reading text that is no longer UTF-8, as bytes; see queries.sql for the form.

-- name: query
-- Another query, its columns named anew.
with q ({names}) as ({statement}) select {columns} from q

-- name: column
-- Whether a column is text, and it with its text as bytes.
typeof({name}) = 'text', iif(typeof({name}) = 'text', cast({name} as blob), {name})
