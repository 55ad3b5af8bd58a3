"""The boards, one file each."""

from deploy.grafana.boards import agents, charts, hall, machine, parts, printers, robots, trust

BOARDS = (hall.BOARD, machine.BOARD, charts.BOARD, parts.BOARD, printers.BOARD, robots.BOARD, trust.BOARD, agents.BOARD)
