-- Fixed amounts of work in Lua: lua5.4 work.lua NAME.
local work = {}

function work.calls()
    local function fib(n)
        if n < 2 then return n end
        return fib(n - 1) + fib(n - 2)
    end
    assert(fib(28) == 317811)
end

function work.sieve()
    for _ = 1, 6 do
        local composite, count = {}, 0
        for n = 2, 100000 do
            if not composite[n] then
                count = count + 1
                for multiple = n * n, 100000, n do composite[multiple] = true end
            end
        end
        assert(count == 9592) -- primes below 100000
    end
end

function work.strings()
    local parts = {}
    for n = 1, 40000 do parts[#parts + 1] = string.format("%d:%x", n, n * n) end
    local text = table.concat(parts, " ")
    local count = 0
    for left, right in text:gmatch("(%d+):(%x+)") do
        assert(tonumber(left) ^ 2 == tonumber(right, 16))
        count = count + 1
    end
    assert(count == 40000)
    assert(#text:upper():reverse():gsub("%s", "") < #text)
end

function work.nbody()
    local bodies = {
        { 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 39.5 },
        { 4.84, -1.16, -0.10, 0.61, 2.81, -0.02, 0.037 },
        { 8.34, 4.12, -0.40, -1.01, 1.82, 0.008, 0.011 },
        { 12.89, -15.11, -0.22, 1.08, 0.87, -0.01, 0.0017 },
    }
    for _ = 1, 20000 do
        for i = 1, #bodies do
            local a = bodies[i]
            for j = i + 1, #bodies do
                local b = bodies[j]
                local dx, dy, dz = a[1] - b[1], a[2] - b[2], a[3] - b[3]
                local square = dx * dx + dy * dy + dz * dz
                local force = 0.01 / (square * square ^ 0.5)
                local ma, mb = a[7] * force, b[7] * force
                a[4], a[5], a[6] = a[4] - dx * mb, a[5] - dy * mb, a[6] - dz * mb
                b[4], b[5], b[6] = b[4] + dx * ma, b[5] + dy * ma, b[6] + dz * ma
            end
        end
        for _, body in ipairs(bodies) do
            for axis = 1, 3 do body[axis] = body[axis] + 0.01 * body[axis + 3] end
        end
    end
end

function work.mandelbrot()
    local inside = 0
    for row = 0, 119 do
        for column = 0, 119 do
            local cx, cy = column / 60 - 1.5, row / 60 - 1.0
            local x, y, steps = 0.0, 0.0, 0
            while steps < 100 and x * x + y * y < 4 do
                x, y = x * x - y * y + cx, 2 * x * y + cy
                steps = steps + 1
            end
            if steps == 100 then inside = inside + 1 end
        end
    end
    assert(inside > 3000)
end

work[arg[1]]()
