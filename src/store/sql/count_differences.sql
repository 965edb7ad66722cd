select count(*) from operation_differences where operation_id = $1
