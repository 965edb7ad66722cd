select exists (
    select from operations
    where view = $1 and kind = 'rebuild' and coalesce(from_build, $2) = $2 and request ->> 'forVersion' = $3::integer::text
)
