-- What was found of the keys after $2, in the order of the keys' bytes.
select key, found, columns from operation_differences where operation_id = $1 and key > $2 order by key limit $3
